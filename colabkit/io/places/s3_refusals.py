"""Refusals of S3, and what the user can do about each."""

from __future__ import annotations

from colabkit.core.errors import ColabkitError, UsageError
from colabkit.io.places.http.client import Fault
from colabkit.io.places.names import unusable_name
from colabkit.io.places.s3_profile import KEYS_FIX, S3Profile

RIGHTS = {"list": "s3:ListBucket", "read": "s3:GetObject", "write": "s3:PutObject", "delete": "s3:DeleteObject"}
_BAD_KEYS = {
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "ExpiredTokenException",
    "InvalidClientTokenId",
}

_ELSEWHERE = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}


def explained(fault: Fault, doing: str, profile: S3Profile, address: str, way: str) -> ColabkitError:
    """Return the error of a fault that does not pass; `way` is as whom the bucket was asked: keys, nobody or role."""
    where = f"{address} at {profile.endpoint}" if profile.endpoint else address
    if fault.kind == "name":
        return unusable_name(fault.cause, address)
    if fault.kind == "certificate":
        return _unknown_certificate(fault.cause, profile, where)
    if fault.kind == "settings":
        return UsageError(
            "The S3 settings cannot be used", got=fault.cause, where=where, fix="check the endpoint and the region"
        )
    if fault.status == 404:
        return UsageError(
            "There is no such bucket",
            got=profile.bucket,
            where=where,
            fix="check the name, and the endpoint if it is not the provider's own",
        )
    if fault.status == 301 or fault.code in _ELSEWHERE:
        known = (
            f"set AWS_REGION to {fault.region}"
            if fault.region
            else "set AWS_REGION to what the bucket's console page shows"
        )
        return UsageError(
            "The bucket lies in another region", got=profile.region or "us-east-1", where=where, fix=known
        )
    if fault.status in (400, 401, 403):
        return _refused(fault, doing, profile, where, way)
    return UsageError(
        f"The store cannot {doing} this",
        got=fault.cause,
        where=where,
        fix="check that the endpoint speaks S3, and in its documentation what it does not support",
    )


def _unknown_certificate(reason: str, profile: S3Profile, where: str) -> UsageError:
    endpoint = profile.endpoint or "the endpoint"
    if reason == "pinned":
        return UsageError(
            "The other side shows another certificate than the one that is pinned",
            where=where,
            fix=f"ask its owner whether it was renewed, then look and pin it again: colabkit trust {endpoint}",
        )
    return UsageError(
        "The other side cannot prove who it is: its certificate is not one that is trusted here",
        got=reason,
        where=where,
        fix="compare its fingerprint with what its owner tells you and pin it: "
        f"colabkit trust {endpoint}; or set AWS_CA_BUNDLE to the certificate of its authority",
    )


def _refused(fault: Fault, doing: str, profile: S3Profile, where: str, way: str) -> UsageError:
    if fault.code in ("RequestTimeTooSkewed", "RequestExpired"):
        return UsageError(
            "The clock of this machine is wrong",
            got=fault.cause,
            where=where,
            fix="set the clock: timedatectl set-ntp true, or ask who runs this machine",
        )
    if way != "keys":
        return UsageError(
            "The bucket is not public, and no credentials were found", got=fault.cause, where=where, fix=KEYS_FIX
        )
    where = f"{where}, keys from {profile.sources.get('access_key', 'the profile')}"
    if fault.code in _BAD_KEYS:
        return UsageError(
            f"The keys {'have expired' if 'Expired' in fault.code else 'are not accepted'}",
            got=fault.cause,
            where=where,
            fix=f"{KEYS_FIX}, and AWS_SESSION_TOKEN if they are temporary",
        )
    return UsageError(
        f"The keys give no right to {doing} in this bucket",
        got=fault.cause,
        expected=f"the right {RIGHTS[doing]}",
        where=where,
        fix=f"allow {RIGHTS[doing]} for them, or use other keys",
    )
