"""The verifier's own Ed25519 and trees, on the RFC's vectors and beside other implementations."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import rfc6962
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from compliance import merkle, offline
from compliance.offline import ORDER, P, Tree, Wrong, check_inclusion, check_signature

# RFC 8032, section 7.1: secret key, public key, message, signature.
VECTORS = {
    "1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
        "b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f1"
        "1d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984d"
        "c6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "1024": (
        "f5e5767cf153319517630f226876b86c8160cc583bc013744c6bf255f5cc0ee5",
        "278117fc144c72340f67d0f2316e8386ceffbf2b2428c9c51fef7c597f1d426e",
        "08b8b2b733424243760fe426a4b54908632110a66c2f6591eabd3345e3e4eb98fa6e264bf09efe12ee50f8f5"
        "4e9f77b1e355f6c50544e23fb1433ddf73be84d879de7c0046dc4996d9e773f4bc9efe5738829adb26c81b37"
        "c93a1b270b20329d658675fc6ea534e0810a4432826bf58c941efb65d57a338bbd2e26640f89ffbc1a858efc"
        "b8550ee3a5e1998bd177e93a7363c344fe6b199ee5d02e82d522c4feba15452f80288a821a579116ec6dad2b"
        "3b310da903401aa62100ab5d1a36553e06203b33890cc9b832f79ef80560ccb9a39ce767967ed628c6ad573c"
        "b116dbefefd75499da96bd68a8a97b928a8bbc103b6621fcde2beca1231d206be6cd9ec7aff6f6c94fcd7204"
        "ed3455c68c83f4a41da4af2b74ef5c53f1d8ac70bdcb7ed185ce81bd84359d44254d95629e9855a94a7c1958"
        "d1f8ada5d0532ed8a5aa3fb2d17ba70eb6248e594e1a2297acbbb39d502f1a8c6eb6f1ce22b3de1a1f40cc24"
        "554119a831a9aad6079cad88425de6bde1a9187ebb6092cf67bf2b13fd65f27088d78b7e883c8759d2c4f5c6"
        "5adb7553878ad575f9fad878e80a0c9ba63bcbcc2732e69485bbc9c90bfbd62481d9089beccf80cfe2df16a2"
        "cf65bd92dd597b0707e0917af48bbb75fed413d238f5555a7a569d80c3414a8d0859dc65a46128bab27af87a"
        "71314f318c782b23ebfe808b82b0ce26401d2e22f04d83d1255dc51addd3b75a2b1ae0784504df543af8969b"
        "e3ea7082ff7fc9888c144da2af58429ec96031dbcad3dad9af0dcbaaaf268cb8fcffead94f3c7ca495e056a9"
        "b47acdb751fb73e666c6c655ade8297297d07ad1ba5e43f1bca32301651339e22904cc8c42f58c30c04aafdb"
        "038dda0847dd988dcda6f3bfd15c4b4c4525004aa06eeff8ca61783aacec57fb3d1f92b0fe2fd1a85f672451"
        "7b65e614ad6808d6f6ee34dff7310fdc82aebfd904b01e1dc54b2927094b2db68d6f903b68401adebf5a7e08"
        "d78ff4ef5d63653a65040cf9bfd4aca7984a74d37145986780fc0b16ac451649de6188a7dbdf191f64b5fc5e"
        "2ab47b57f7f7276cd419c17a3ca8e1b939ae49e488acba6b965610b5480109c8b17b80e1b7b750dfc7598d5d"
        "5011fd2dcc5600a32ef5b52a1ecc820e308aa342721aac0943bf6686b64b2579376504ccc493d97e6aed3fb0"
        "f9cd71a43dd497f01f17c0e2cb3797aa2a2f256656168e6c496afc5fb93246f6b1116398a346f1a641f3b041"
        "e989f7914f90cc2c7fff357876e506b50d334ba77c225bc307ba537152f3f1610e4eafe595f6d9d90d11faa9"
        "33a15ef1369546868a7f3a45a96768d40fd9d03412c091c6315cf4fde7cb68606937380db2eaaa707b4c4185"
        "c32eddcdd306705e4dc1ffc872eeee475a64dfac86aba41c0618983f8741c5ef68d3a101e8a3b8cac60c905c"
        "15fc910840b94c00a0b9d0",
        "0aab4c900501b3e24d7cdf4663326a3a87df5e4843b2cbdb67cbf6e460fec350aa5371b1508f9f4528ecea23c436"
        "d94b5e8fcd4f681e30a6ac00a9704a188a03",
    ),
    "SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").hexdigest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431"
        "e0303dca179c138ac17ad9bef1177331a704",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfc_verify(name: str) -> None:
    secret, public, message, signature = map(bytes.fromhex, VECTORS[name])
    assert Ed25519PrivateKey.from_private_bytes(secret).sign(message) == signature
    check_signature(public, signature, message)
    for at in range(64):
        changed = signature[:at] + bytes([signature[at] ^ 1 << at % 8]) + signature[at + 1 :]
        with pytest.raises(Wrong):
            check_signature(public, changed, message)
    with pytest.raises(Wrong):
        check_signature(public, signature, message + b"\0")


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=100))
def test_what_another_implementation_signs_verifies(secret: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(secret)
    check_signature(key.public_key().public_bytes_raw(), key.sign(message), message)


@given(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 511),
    st.sampled_from(["key", "signature"]),
)
def test_one_bit_decides_as_elsewhere(secret: bytes, bit: int, where: str) -> None:
    """Both refuse; and neither takes what the other does not."""
    key = Ed25519PrivateKey.from_private_bytes(secret)
    public, signature = key.public_key().public_bytes_raw(), key.sign(b"message")

    def flipped(data: bytes) -> bytes:
        at = bit % (8 * len(data))
        return data[: at // 8] + bytes([data[at // 8] ^ 1 << at % 8]) + data[at // 8 + 1 :]

    public, signature = (
        (flipped(public), signature) if where == "key" else (public, flipped(signature))
    )
    with pytest.raises(Wrong):
        check_signature(public, signature, b"message")
    with pytest.raises((InvalidSignature, ValueError)):
        Ed25519PublicKey.from_public_bytes(public).verify(signature, b"message")


def y(value: int, sign: int = 0) -> bytes:
    return (value | sign << 255).to_bytes(32, "little")


# The points of small order in all their forms ("Taming the many EdDSAs", Chalkias et al., 2020).
ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
SMALL = [y(v, s) for v in (0, 1, P - 1, ORDER_8, P - ORDER_8, P, P + 1) for s in (0, 1)]


@pytest.mark.parametrize("public", SMALL, ids=lambda key: key.hex()[:6])
def test_a_key_that_fits_any_message_is_refused(public: bytes) -> None:
    for first in (public, y(1)):
        with pytest.raises(Wrong):
            check_signature(public, first + bytes(32), b"any")


def test_forms_that_are_not_canonical_are_refused() -> None:
    _, public, message, signature = map(bytes.fromhex, VECTORS["3"])
    s = int.from_bytes(signature[32:], "little")
    for wrong in (s + ORDER, s + 2 * ORDER, 2**256 - 1):
        with pytest.raises(Wrong, match="out of range"):
            check_signature(public, signature[:32] + wrong.to_bytes(32, "little"), message)
    for key in (y(P + 3), y(2**255 - 1), y(2)):  # beyond p, and on no curve
        with pytest.raises(Wrong, match="no point"):
            check_signature(key, signature, message)


@pytest.mark.parametrize(("key", "signature"), [(31, 64), (33, 64), (0, 0), (32, 63), (32, 65)])
def test_other_lengths_are_refused(key: int, signature: int) -> None:
    with pytest.raises(Wrong, match="another length"):
        check_signature(bytes(key), bytes(signature), b"")


# Trees


@given(st.lists(st.binary(max_size=4), max_size=40), st.data())
def test_hashes_may_stand_for_entries(leaves: list[bytes], data: st.DataObject) -> None:
    """Any subtrees in place of their leaves give the root that another implementation gives."""
    tree, at = Tree(), 0
    while at < len(leaves):
        most = min(at & -at or 1 << 6, len(leaves) - at).bit_length() - 1
        level = data.draw(st.integers(0, most))
        part = leaves[at : at + (1 << level)]
        tree.add(rfc6962.mth(part), level)
        at += 1 << level
    assert tree.root() == rfc6962.mth(leaves)
    assert tree.size == len(leaves)


def test_a_subtree_stands_only_where_one_can() -> None:
    tree = Tree()
    tree.add(bytes(32))
    for level in (1, 2, 62, 63, 1000, -1):
        with pytest.raises(Wrong):
            tree.add(bytes(32), level)


@given(st.integers(1, 40), st.data())
def test_inclusion_is_what_another_implementation_proves(size: int, data: st.DataObject) -> None:
    leaves = [bytes([number]) for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    path, root = rfc6962.path(index, leaves), rfc6962.mth(leaves)
    leaf = merkle.leaf_hash(leaves[index])
    check_inclusion(leaf, index, size, path, root)
    other = data.draw(st.integers(-1, size + 1).filter(lambda one: one != index))
    for wrong in ((other, size, path), (index, size, path[1:]), (index, size, [*path, root])):
        if wrong[2] != path or wrong[0] != index:
            with pytest.raises(Wrong):
                check_inclusion(leaf, *wrong, root)


# What is hostile


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 1_000_000,
        b'{"a":1,"a":1}',
        b"\xff",
        b"",
        b"-" + b"9" * 5000,
    ],
    ids=lambda data: repr(data[:8]),
)
def test_json_that_could_be_read_in_two_ways_or_exhausts_is_refused(data: bytes) -> None:
    start = time.process_time()
    with pytest.raises(Wrong):
        offline.parse(data)
    assert time.process_time() - start < 2


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    """A pipe would never end."""
    os.mkfifo(tmp_path / "manifest.json")
    (tmp_path / "keys.json").symlink_to("/dev/zero")
    done = subprocess.run(
        [sys.executable, "-I", offline.__file__, tmp_path],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "manifest.json is no file" in done.stdout
    assert "keys.json is no file" in done.stdout


def test_a_folder_that_is_none_is_said_to_be_none(tmp_path: Path) -> None:
    (evidence,) = offline.verify([tmp_path / "none"], None)
    assert any("cannot be read" in line for line in evidence.fails)
