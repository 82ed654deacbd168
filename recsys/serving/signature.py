"""Who made a bundle: an Ed25519 signature of its manifest, which holds all checksums."""

from __future__ import annotations

from pathlib import Path

from feature_store.durable import write_bytes
from feature_store.errors import ConfigError, DataError
from recsys.serving.files import plain_file

SIGNATURE = "manifest.sig"
_HOW = (
    "`openssl genpkey -algorithm ed25519 -out key.pem` makes one, "
    "`openssl pkey -in key.pem -pubout -out public.pem` its public half"
)


def sign(folder: Path, manifest: bytes, private_key: Path) -> None:
    """Write the signature of a manifest beside it.

    Raises ConfigError where the file holds no private Ed25519 key without a password.
    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{private_key} cannot be read as a key: {error}; {_HOW}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{private_key} is no private Ed25519 key: {_HOW}")
    write_bytes(key.sign(manifest), folder / SIGNATURE)


def check_signature(folder: Path, manifest: bytes, public_key: Path) -> None:
    """Raises DataError where the manifest was not signed by the holder of a key, ConfigError where
    the file holds no public Ed25519 key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(public_key.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{public_key} cannot be read as a public key: {error}; {_HOW}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{public_key} is no public Ed25519 key: {_HOW}")
    if not (folder / SIGNATURE).exists():
        raise DataError(f"{folder} is not signed: `recsys bundle sign {folder} --key KEY` signs it")
    try:
        key.verify(plain_file(folder, SIGNATURE).read_bytes(), manifest)
    except InvalidSignature:
        raise DataError(
            f"{folder} was not signed by the holder of {public_key}, or altered since: do not use "
            "it, nothing of it was run"
        ) from None
