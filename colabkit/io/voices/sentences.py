"""Everyday sentences in eight languages for synthesised speech: 3 to 15 words, numbers as words."""

from __future__ import annotations

_SENTENCES = {
    "en": """
        The kettle boils quickly.
        Where did you leave my umbrella?
        Seven boats crossed the bay before noon.
        Please turn the music down a little.
        My sister paints small houses on old wooden doors.
        The train was late again because of the snow.
        Could we meet at the library on Thursday afternoon?
        He measured the shelf twice and still cut it too short.
        Fresh bread smells better than any perfume I know.
        Nobody noticed the cat under the table.
        It rained.  All of the tents were soaked.
        After dinner, we walked along the river and counted the lights.
        She answered forty two letters in a single evening.
        That joke is older than this bridge.
        The children built a castle out of empty boxes and blue tape.
        Keep the receipt, just in case it breaks.
        A yellow bicycle leaned against the garden wall.
        I think the other road is shorter, but it is steep.
        Why are there three clocks in this kitchen?
        Our neighbour plays the trumpet every morning at half past six.
        The doctor asked me to breathe in slowly and hold it.
        Turn left after the church and follow the smell of coffee.
        Winter came early, and the lake froze within a week.
        You should have seen their faces when the lights came back on!
        Two engineers argued about the colour of the warning lamp.
        The recipe calls for a cup of sugar and a pinch of salt.
        We never found out who had fixed the fence.
        Thank you for waiting so patiently.
        The museum opens at nine and closes when the last guest leaves.
        An orange rolled down the hill and stopped at my feet.
        Is this seat free, or are you saving it for someone?
        They sold the piano and bought a small green car.
        The pilot spoke softly, and everyone stopped worrying.
        Half of the apples were sour, but the pie was good.
        Call me when you arrive.
        The old map shows a village that no longer exists.""",
    "de": """
        Es klopft schon wieder.
        Der Kaffee ist noch heiß.
        Wo hast du die Schlüssel hingelegt?
        Am Sonntag gehen wir zusammen in den Wald.
        Meine Tante züchtet Bienen hinter dem Haus.
        Der Zug fährt heute von Gleis sieben ab.
        Kannst du bitte das Fenster schließen?
        Im Keller stehen noch drei alte Fahrräder.
        Er hat den ganzen Abend über das Wetter geredet.
        Die Kinder malen große Fische an die Wand.
        Das Brot schmeckt am besten, wenn es noch warm ist.
        Niemand wusste, wem der rote Schirm gehörte.
        Nach dem Regen roch die Straße nach Staub und Sommer.
        Wir treffen uns um halb neun vor dem Theater.
        Sie schreibt jeden Tag einen Brief an ihre Schwester.
        Der Hund schläft am liebsten unter dem Tisch.
        Warum ist die Brücke heute gesperrt?
        Vorsicht, die Stufen sind glatt!
        Mein Nachbar spielt Geige, leider ziemlich schlecht.
        Auf dem Markt kosten fünf Äpfel nur zwei Euro.
        Bitte sprechen Sie etwas langsamer.
        Die Lehrerin erklärte die Aufgabe noch einmal von vorn.
        Gestern habe ich einen Igel im Garten gesehen.
        Das Museum ist montags leider geschlossen.
        Wer zuerst ankommt, deckt den Tisch.
        Der Schnee blieb bis Ende März auf den Dächern liegen.
        Ich habe vergessen, wie das Lied weitergeht.
        Vierzig Gäste passten kaum in die kleine Stube.
        Der Bäcker kennt jeden im Dorf beim Namen.
        Hinter dem Hügel beginnt schon das Meer.
        Vielen Dank für die schnelle Antwort.
        Wenn das Licht blinkt, ist der Akku fast leer.""",
    "fr": """
        Le soleil se couche derrière la colline.
        Où as-tu rangé mes lunettes ?
        Nous prenons le train de huit heures demain matin.
        Ma grand-mère cultive des tomates sur son balcon.
        Il fait trop chaud pour courir.
        Peux-tu fermer la porte, s'il te plaît ?
        Les enfants dessinent des bateaux sur le sable.
        Le boulanger connaît tout le quartier.
        Je n'ai jamais vu autant de neige en avril.
        Elle a perdu son parapluie dans le métro.
        Trois chats dorment sur le vieux canapé bleu.
        Quelle belle surprise !
        Le musée ouvre à neuf heures et ferme à six heures.
        On entend la mer depuis la fenêtre de la cuisine.
        Mon voisin répare des horloges le dimanche.
        Pourquoi la lumière reste-t-elle allumée ?
        Après le repas, nous avons joué aux cartes jusqu'à minuit.
        Cette chanson me rappelle un long voyage en voiture.
        Attention, la marche est haute.
        Il a acheté cinq pommes et un peu de fromage.
        Le facteur passe toujours avant midi.
        Personne ne savait à qui appartenait le chien.
        Parlez plus lentement, je vous prie.
        Sa sœur travaille dans une petite librairie près du pont.
        Les feuilles tombent déjà, et le vent devient froid.
        Je vous remercie de votre patience.
        Deux ingénieurs discutaient de la couleur du bouton.
        Le gâteau est encore trop chaud pour être coupé.
        Tournez à gauche après l'église.
        Quand la pluie cesse, les oiseaux recommencent à chanter.
        La vieille carte montre un village disparu.""",
    "es": """
        El café está listo.
        ¿Dónde dejaste las llaves del coche?
        Mañana salimos temprano hacia la montaña.
        Mi abuela guarda los botones en una caja de lata.
        Los niños juegan en la plaza hasta la noche.
        ¿Puedes bajar un poco la música, por favor?
        El tren llega siempre con diez minutos de retraso.
        Nadie sabía de quién era el perro.
        Compramos pan, queso y tres tomates maduros.
        La luna brillaba sobre los tejados mojados.
        Ayer encontré una carta entre las páginas de un libro.
        ¡Qué alegría volver a verte!
        El museo cierra los lunes.
        Mi vecina toca la guitarra en el balcón.
        Después de la lluvia, el aire huele a tierra.
        Hay cuatro sillas y solo una mesa.
        Gire a la derecha después del puente.
        Ella nunca olvida el cumpleaños de sus amigos.
        El panadero se levanta a las tres de la mañana.
        No entiendo por qué la luz sigue encendida.
        Dos pescadores discutían sobre el color del mar.
        Hable más despacio, por favor.
        Este camino es más corto, pero tiene muchas piedras.
        El gato duerme encima del armario.
        Cuando llegues a casa, llámame.
        La sopa todavía está demasiado caliente.
        Perdimos el autobús y volvimos andando.
        Su hermano trabaja en una librería muy pequeña.
        En invierno, el lago se cubre de hielo.
        Gracias por esperar con tanta paciencia.
        El viejo mapa muestra un pueblo que ya no existe.""",
    "it": """
        Il treno parte tra poco.
        Dove hai messo le mie scarpe?
        Domani andiamo al mare con gli amici.
        Mia nonna prepara la pasta ogni domenica.
        I bambini corrono nel cortile della scuola.
        Puoi chiudere la finestra, per favore?
        Nessuno sapeva di chi fosse il cane.
        Il caffè è troppo caldo per berlo subito.
        Abbiamo comprato pane, formaggio e sei mele rosse.
        La luna splende sopra i tetti della città.
        Ieri ho trovato una lettera in un vecchio libro.
        Che bella giornata!
        Il museo è chiuso il lunedì.
        Il mio vicino suona il violino ogni sera.
        Dopo la pioggia l'aria profuma di terra.
        Ci sono quattro sedie e un solo tavolo.
        Gira a destra subito dopo il ponte.
        Lei non dimentica mai un compleanno.
        Il fornaio si alza alle tre di notte.
        Perché la luce è ancora accesa?
        Due pescatori discutevano del colore del mare.
        Parli più lentamente, la prego.
        Questa strada è più corta, ma è piena di sassi.
        Il gatto dorme sopra l'armadio.
        Quando arrivi a casa, chiamami.
        Abbiamo perso l'autobus e siamo tornati a piedi.
        Suo fratello lavora in una piccola libreria.
        D'inverno il lago si copre di ghiaccio.
        Grazie per aver aspettato con tanta pazienza.
        La vecchia mappa mostra un paese che non esiste più.""",
    "pt": """
        O café já está pronto.
        Onde deixaste o meu chapéu?
        Amanhã vamos à praia com os primos.
        A minha avó guarda moedas numa caixa azul.
        As crianças brincam na rua até tarde.
        Pode fechar a janela, por favor?
        O comboio chega sempre atrasado.
        Ninguém sabia de quem era o cão.
        Comprámos pão, queijo e cinco laranjas.
        A lua brilha sobre os telhados da vila.
        Ontem encontrei uma carta dentro de um livro velho.
        Que surpresa tão boa!
        O museu fecha à segunda-feira.
        O meu vizinho toca piano todas as noites.
        Depois da chuva, o ar cheira a terra molhada.
        Há quatro cadeiras e apenas uma mesa.
        Vire à esquerda depois da ponte.
        Ela nunca esquece o nome de ninguém.
        O padeiro levanta-se às três da manhã.
        Por que razão a luz ainda está acesa?
        Dois pescadores falavam sobre a cor do mar.
        Fale mais devagar, por favor.
        Este caminho é mais curto, mas tem muitas pedras.
        O gato dorme em cima do armário.
        Quando chegares a casa, telefona.
        A sopa ainda está demasiado quente.
        Perdemos o autocarro e voltámos a pé.
        O irmão dela trabalha numa pequena livraria.
        No inverno, o lago fica coberto de gelo.
        Obrigado por esperar com tanta paciência.""",
    "ru": """
        Чайник уже закипел.
        Где ты оставил мой зонтик?
        Завтра мы едем на дачу к друзьям.
        Моя бабушка печёт пироги по воскресеньям.
        Дети строят замок из мокрого песка.
        Закройте, пожалуйста, окно.
        Поезд опять опаздывает на десять минут.
        Никто не знал, чья это собака.
        Мы купили хлеб, сыр и шесть яблок.
        Луна светит над крышами старого города.
        Вчера я нашёл письмо между страницами книги.
        Какой прекрасный день!
        Музей закрыт по понедельникам.
        Мой сосед играет на скрипке каждый вечер.
        После дождя воздух пахнет землёй.
        В комнате четыре стула и только один стол.
        Поверните налево сразу после моста.
        Она никогда не забывает дни рождения друзей.
        Пекарь встаёт в три часа ночи.
        Почему на кухне до сих пор горит свет?
        Два рыбака спорили о цвете моря.
        Говорите, пожалуйста, медленнее.
        Эта дорога короче, но на ней много камней.
        Кошка спит на старом шкафу.
        Когда приедешь домой, позвони мне.
        Суп ещё слишком горячий.
        Мы опоздали на автобус и пошли пешком.
        Её брат работает в маленьком книжном магазине.
        Зимой озеро покрывается толстым льдом.
        Спасибо, что вы так терпеливо ждали.""",
    "el": """
        Ο καφές είναι έτοιμος.
        Πού άφησες τα κλειδιά μου;
        Αύριο θα πάμε στη θάλασσα με τους φίλους μας.
        Η γιαγιά μου φτιάχνει ψωμί κάθε Κυριακή.
        Τα παιδιά παίζουν στην πλατεία μέχρι αργά.
        Κλείσε το παράθυρο, σε παρακαλώ.
        Το τρένο έρχεται πάντα με καθυστέρηση.
        Κανείς δεν ήξερε ποιανού ήταν ο σκύλος.
        Αγοράσαμε τυρί, ελιές και έξι μήλα.
        Το φεγγάρι λάμπει πάνω από τις στέγες.
        Χθες βρήκα ένα γράμμα μέσα σε ένα παλιό βιβλίο.
        Τι όμορφη μέρα!
        Το μουσείο είναι κλειστό τη Δευτέρα.
        Ο γείτονάς μου παίζει βιολί κάθε βράδυ.
        Μετά τη βροχή ο αέρας μυρίζει χώμα.
        Υπάρχουν τέσσερις καρέκλες και μόνο ένα τραπέζι.
        Στρίψε αριστερά μετά τη γέφυρα.
        Δεν ξεχνάει ποτέ τα γενέθλια των φίλων της.
        Ο φούρναρης ξυπνάει στις τρεις το πρωί.
        Γιατί είναι ακόμα αναμμένο το φως;
        Δύο ψαράδες μιλούσαν για το χρώμα της θάλασσας.
        Μιλήστε πιο αργά, παρακαλώ.
        Αυτός ο δρόμος είναι πιο σύντομος, αλλά έχει πολλές πέτρες.
        Η γάτα κοιμάται πάνω στη ντουλάπα.
        Όταν φτάσεις στο σπίτι, πάρε με τηλέφωνο.
        Η σούπα είναι ακόμα πολύ ζεστή.
        Χάσαμε το λεωφορείο και γυρίσαμε με τα πόδια.
        Ο αδελφός της δουλεύει σε ένα μικρό βιβλιοπωλείο.
        Τον χειμώνα η λίμνη παγώνει.
        Ευχαριστώ που περιμένατε με τόση υπομονή.""",
}

SENTENCES: dict[str, tuple[str, ...]] = {
    language: tuple(" ".join(line.split()) for line in text.strip().splitlines())
    for language, text in _SENTENCES.items()
}
