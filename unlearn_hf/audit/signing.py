"""A detached signature over an audit: who holds the key says that these results belong to these weights and data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_hf.audit import SIGNATURE_FILE
from unlearn_hf.common.extras import require
from unlearn_hf.common.files import read_json, write_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


_FIELDS = ("result_sha256", "weights", "data")


def load_key(path: Path) -> Ed25519PrivateKey:
    """The private key of a PEM file without a password (`openssl genpkey -algorithm ed25519`).

    Raises:
        ValueError: when it is not there, or is no such key.
        ImportError: without `cryptography`.
    """
    require("cryptography", "sign", "sign")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not path.is_file():
        raise ValueError(f"sign: there is no file {str(path)!r}; `openssl genpkey -algorithm ed25519` makes a key.")
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as problem:
        raise ValueError(f"sign: {str(path)!r} is no private key in PEM without a password ({problem}).") from problem
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"sign: {str(path)!r} holds another kind of key; give an ed25519 one.")
    return key


def sign(result: Path, key: Ed25519PrivateKey) -> Path:
    """Write the signature of a result beside it.

    Args:
        result: `audit.json`.
        key: what to sign with; its public half goes into the signature.

    Returns:
        The file that was written.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    content = read_json(result)
    statement: dict[str, Any] = {
        "result_sha256": hashlib.sha256(result.read_bytes()).hexdigest(),
        "weights": content["fingerprints"]["weights"]["run"],
        "data": content["fingerprints"]["data"],
    }
    public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    target = result.with_name(SIGNATURE_FILE)
    write_json(
        target,
        {
            **statement,
            "public_key": base64.b64encode(public).decode(),
            "signature": base64.b64encode(key.sign(_message(statement))).decode(),
        },
    )
    return target


def verify(result: Path, weights: str, data: str) -> str:
    """Check a signature against the result, the weights and the data that are there now.

    Args:
        result: `audit.json`, with its signature beside it.
        weights: fingerprint of the model as it is.
        data: fingerprint of the rows as they are.

    Returns:
        The public key, base64: whose signature it is, only its owner can say.

    Raises:
        ValueError: for a signature that is missing, damaged or of other content, naming what does not fit.
        ImportError: without `cryptography`.
    """
    require("cryptography", "sign", "verify")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    file = result.with_name(SIGNATURE_FILE)
    signed = read_json(file)
    try:
        statement = {name: signed[name] for name in _FIELDS}
        public, signature = (base64.b64decode(signed[name], validate=True) for name in ("public_key", "signature"))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(statement))
    except (InvalidSignature, KeyError, TypeError, ValueError) as problem:
        raise ValueError(f"verify: the signature {str(file)!r} is damaged ({type(problem).__name__}).") from problem
    now = {"result_sha256": hashlib.sha256(result.read_bytes()).hexdigest(), "weights": weights, "data": data}
    names = {"result_sha256": f"the result {str(result)!r}", "weights": "the model", "data": "the data"}
    if changed := [names[name] for name in _FIELDS if statement[name] != now[name]]:
        raise ValueError(f"verify: changed since it was signed: {', '.join(changed)}.")
    return str(signed["public_key"])


def _message(statement: Mapping[str, Any]) -> bytes:
    return json.dumps(statement, sort_keys=True).encode()
