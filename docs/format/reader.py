#!/usr/bin/env python3
"""Reads a Holdfast repository without Holdfast. It is written only from the pages beside it, and so tests them.

    reader.py REPOSITORY list [CLUSTER]
    reader.py REPOSITORY restore CLUSTER --to DIR [--backup ID] [--tablespace OID=DIR]...
    reader.py REPOSITORY wal CLUSTER FILE DEST [--claim N]
    reader.py REPOSITORY wal-all CLUSTER DEST_DIR [--claim N]

REPOSITORY is a directory; copy a bucket into one first, with any S3 client. --passphrase-file FILE or --key-file FILE
(32 bytes, 64 digits, or AGE-SECRET-KEY-1...) opens an encrypted one. Run it as the user PostgreSQL runs as;
scripts/requirements-reader.txt lists the libraries.

To start what was restored: fetch the WAL with `wal-all`, put restore_command = 'cp DEST_DIR/%f %p' into
DIR/postgresql.auto.conf, and create DIR/recovery.signal. (Do not make `wal` the restore_command: it ends with 1 for a
damaged file too, and PostgreSQL takes that for the end of the archive.) The readable part of a damaged file stays as
DEST.part.
"""
import argparse, functools, hashlib, hmac, json, os, re, struct, sys, zlib
from collections import namedtuple
from contextlib import contextmanager

import google_crc32c, lz4.block, zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

HEAD, DATA, INDEX, FACTS, TAIL = range(5)
PACK, WAL, MANIFEST, RECORD = range(1, 5)
CODECS, ENDINGS = ["none", "zstd", "lz4", "gzip"], ["raw", "zst", "lz4", "gz"]
LAST, ENCRYPTED = 1, 2
FILE, DIRECTORY, LINK = range(3)
MIB = 1 << 20
NAME, BACKUP, CLAIM = r"(?!\.)[A-Za-z0-9._-]{1,63}", r"\d{8}T\d{6}Z", r"[1-9]\d*\.json"
HISTORY, SEGMENT = r"[0-9A-F]{8}\.history", r"[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?"
KINDS = ["repository", "key-slot", "claim", "backup-start", "backup", "snapshot", "ledger", "lease"]
HEADER, FILES, PACKS, REFERENCES, ORIGINS = range(1, 10, 2)
HAS_CRC32C, HAS_PATCHES, HAS_IDENTITY = 1, 2, 1
CONTROL, NEWER = b"global/pg_control", "written by a newer holdfast"
Frame = namedtuple("Frame", "kind codec flags number raw end")
Entry = namedtuple("Entry", "path kind mode size mtime target crc32c extents")
Extent = namedtuple("Extent", "place patches")
Place = namedtuple("Place", "pack frame_at frame_length at length hash")
Pack = namedtuple("Pack", "name size identity")


class Unreadable(Exception):
    """Which object cannot be read, and why."""


def need(condition, problem):
    if not condition:
        raise Unreadable(problem)


@contextmanager
def reading(what):
    """Every error inside is about this object, or this part of it."""
    try:
        yield
    except InvalidTag:
        raise Unreadable(f"{what}: fails its authentication: it was changed, or put in the place of another") from None
    except KeyError as e:
        raise Unreadable(f"{what}: lacks {e}") from e
    except (Unreadable, TypeError, ValueError, RuntimeError, zlib.error, zstandard.ZstdError, OSError) as e:
        raise Unreadable(f"{what}: {e}") from e


@contextmanager
def skipping():
    """An object that cannot be read is named and left out; the rest is read."""
    try:
        yield
    except Unreadable as e:
        print(f"left out: {e}", file=sys.stderr)


def hkdf(ikm, salt, info):
    return HKDF(SHA256(), 32, salt, info).derive(ikm)


def decompress(codec, body, raw_len):
    if codec == 1:
        need(zstandard.frame_content_size(body) == raw_len, "its zstd frame states another length")
        return zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
    if codec == 2:
        return lz4.block.decompress(body, uncompressed_size=raw_len)
    if codec == 3:
        gzip = zlib.decompressobj(wbits=31)
        raw = gzip.decompress(body, raw_len + 1)
        need(gzip.eof and not gzip.unused_data, "its gzip member does not end where it should")
        return raw
    return body


class Object:
    """An object made of frames (frame.md, encryption.md). Opening it reads and checks the head."""

    def __init__(self, repository, name, object_type):
        self.name, self.cipher, self.file = name, None, open(repository.path(name), "rb")
        self.size = os.fstat(self.file.fileno()).st_size
        head = self.frame(0)
        need(head[:4] == (HEAD, 0, 0, 0) and head.end == 92, "does not begin with a head frame")
        signature, version, kind, encryption, owner, salt = struct.unpack("<8sHBB16s32s", head.raw)
        need(signature == b"HOLDFAST", "no object of Holdfast")
        need(version == 1 and encryption <= 1, NEWER)
        need(owner == repository.id, f"belongs to another repository, {owner.hex()}")
        need(kind == object_type, f"an object of type {kind}, but its name is one of type {object_type}")
        need(bool(encryption) == bool(repository.keys), "encrypted or not, unlike the repository")
        self.salt = salt
        if encryption:
            epoch = int.from_bytes(salt[28:], "little")
            need(epoch < len(repository.keys), f"encrypted under key epoch {epoch}, which the secret does not give")
            self.cipher = AESGCM(hkdf(repository.keys[epoch], salt, b"holdfast/1/object" + bytes([kind]) + owner))

    def frame(self, at):
        with reading(f"frame at {at}"):
            self.file.seek(at)
            header = self.file.read(32)
            need(len(header) == 32, "truncated")
            (magic, skip, kind, codec, transform, flags, number, raw_len, stored_len, body_checksum,
             header_checksum) = struct.unpack("<IIBBBBIIIII", header)
            need(magic == 0x184D2A5B, "no frame begins here")
            need(google_crc32c.value(header[:28]) == header_checksum, "the header fails its checksum")
            need(kind <= TAIL and codec <= 3 and transform == 0 and flags <= 3, NEWER)
            need(raw_len <= (MIB if kind == FACTS else 64 * MIB) and stored_len <= 65 * MIB, "too large")
            seen_by_zstd = kind == DATA and codec == 1 and not flags & ENCRYPTED
            need(skip == (24 if seen_by_zstd else 24 + stored_len), "wrong skip length")
            body = self.file.read(stored_len)
            need(len(body) == stored_len, "truncated")
            need(google_crc32c.value(body) == body_checksum, "the body fails its checksum")
            need(bool(flags & ENCRYPTED) == bool(self.cipher), "encrypted or not, unlike its object")
            if self.cipher:
                name = self.name.encode()
                aad = struct.pack("<I", len(name)) + name + header[8:24]
                body = self.cipher.decrypt(struct.pack(">QI", 0, number), body, aad)
            raw = decompress(codec, body, raw_len)
            need(len(raw) == raw_len, f"has {len(raw)} bytes instead of {raw_len}")
            return Frame(kind, codec, flags, number, raw, at + 32 + stored_len)

    def frames(self):
        """All frames after the head, with their offsets; refuses an object that is not whole."""
        at, number, flags = 92, 0, 0
        while not flags & LAST:
            frame, number = self.frame(at), number + 1
            need(frame.kind != HEAD and frame.number == number, f"frame at {at}: out of order")
            yield at, frame
            at, flags = frame.end, frame.flags
        need(at == self.size, "bytes after the last frame")


def private_key(text, name):
    """The X25519 key of a key file: Bech32 (BIP 173) as age writes it, without a look at its checksum."""
    lines = [line.strip().lower() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    need(len(lines) == 1 and lines[0].startswith("age-secret-key-1"), f"{name} does not hold exactly one private key")
    value = 0
    for digit in lines[0].removeprefix("age-secret-key-1")[:-6]:
        value = value << 5 | "qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(digit)
    return X25519PrivateKey.from_private_bytes((value >> 4).to_bytes(32, "big"))


class Repository:
    """Names, records and the keys, one for each epoch (names.md, records.md, keys.md)."""

    def __init__(self, directory, passphrase_file=None, key_file=None):
        self.directory, self.keys, secret_file = directory, [], passphrase_file or key_file
        need(os.path.isfile(self.path("holdfast.json")), f"{directory} is not a repository: it has no holdfast.json")
        about = self.record("holdfast.json", "repository")
        need(about["format_version"] == 1 and about["encryption"] in ("none", "aes-256-gcm"), f"holdfast.json: {NEWER}")
        extent, pack = about["extent_size_bytes"], about["pack_size_bytes"]
        need(0 < extent <= 16 * MIB and extent % 32768 == 0 and MIB <= pack <= 2048 * MIB, "holdfast.json: sizes out of bounds")
        self.id, encrypted = bytes.fromhex(about["repository_id"]), about["encryption"] != "none"
        need(secret_file or not encrypted, "the repository is encrypted: give --passphrase-file or --key-file")
        need(encrypted or not secret_file, "a secret is given, but the repository says that it is not encrypted")
        for feature in self.list("features", f"read-{NAME}"):
            raise Unreadable(f"features/{feature}: {NEWER}")
        if encrypted:
            keys = self.unlock(passphrase_file, key_file)
            record, body = self.parsed("holdfast.json")
            mac = hmac.new(hkdf(keys[0], self.id, b"holdfast/1/repository-record"), body, "sha256").hexdigest()
            need(hmac.compare_digest(mac, str(record.get("mac"))), "holdfast.json: fails its MAC: changed by others")
            self.keys = keys

    def path(self, name):
        return os.path.join(self.directory, name)

    def list(self, folder, pattern):
        names = os.listdir(self.path(folder)) if os.path.isdir(self.path(folder)) else []
        return sorted(name for name in names if re.fullmatch(pattern, name))

    def record(self, name, kind):
        """The body of a JSON record."""
        with reading(self.path(name)):
            record, body = self.parsed(name)
            need(record["holdfast"] in KINDS, NEWER)
            need(record["holdfast"] == kind, f"a record of kind {record['holdfast']}")
            need(record["version"] == 1, NEWER)
            need(body is not None, "fails its SHA-256")
            return json.loads(body)

    def parsed(self, name):
        """A record, and the text of its body if the SHA-256 is right; otherwise None."""
        if self.keys:
            frames = [frame for _, frame in Object(self, name, RECORD).frames()]
            need([frame.kind for frame in frames] == [DATA], "not one data frame")
            text = frames[0].raw.decode()
        else:
            with open(self.path(name), "rb") as file:
                text = file.read().decode()
        record = json.loads(text)
        for match in re.finditer(r'"body"\s*:\s*', text):
            _, end = json.JSONDecoder().raw_decode(text, match.end())
            body = text[match.end():end].encode()
            if hashlib.sha256(body).hexdigest() == record.get("sha256"):
                return record, body
        return record, None

    def unlock(self, passphrase_file, key_file):
        """The repository keys by epoch, from the slot of the latest epoch that opens."""
        found, private = [], None
        with open(passphrase_file or key_file, "rb") as file:
            secret = file.read()
        if passphrase_file:
            secret = re.sub(rb"\r?\n\Z", b"", secret)
        elif re.search(rb"AGE-SECRET-KEY-1", secret, re.IGNORECASE):
            private = private_key(secret.decode(), key_file)
        elif len(secret) != 32:
            need(re.fullmatch(rb"\s*[0-9A-Fa-f]{64}\s*", secret), f"{key_file} holds neither 32 bytes nor 64 digits")
            secret = bytes.fromhex(secret.decode())
        for name in self.list("keys", NAME + r"\.json"):
            slot = name.removesuffix(".json")
            with skipping(), reading(f"keys/{name}"):
                need(os.path.getsize(self.path(f"keys/{name}")) <= 65536, "too large for a key slot")
                body = self.record(f"keys/{name}", "key-slot")
                need(body["kind"] in ("passphrase", "key-file", "x25519"), NEWER)
                need(body["kdf"]["algorithm"] in ("argon2id", "hkdf-sha256", "x25519-hkdf-sha256"), NEWER)
                epoch, earlier = body.get("epoch", 0), [bytes.fromhex(text) for text in body.get("earlier", [])]
                need(epoch == len(earlier) < 256, f"epoch {epoch} with the keys of {len(earlier)} earlier ones")
                need(body["slot"] == slot, f"a slot of another name, {body['slot']}")
                kdf, wrapped = body["kdf"], bytes.fromhex(body["wrapped"])
                salt = bytes.fromhex(kdf.get("salt", ""))
                if passphrase_file and (body["kind"], kdf["algorithm"]) == ("passphrase", "argon2id"):
                    memory, passes, lanes = kdf["memory_kib"], kdf["iterations"], kdf["parallelism"]
                    need(8192 <= memory <= MIB and 1 <= passes <= 64 and memory * passes <= 8 * MIB
                         and 1 <= lanes <= 16, "parameters out of bounds")
                    wrapping_key = hash_secret_raw(secret, salt, passes, memory, lanes, 32, Type.ID, 0x13)
                elif private and (body["kind"], kdf["algorithm"]) == ("x25519", "x25519-hkdf-sha256"):
                    recipient, ephemeral = bytes.fromhex(kdf["recipient"]), bytes.fromhex(kdf["ephemeral"])
                    if recipient != private.public_key().public_bytes_raw():
                        continue
                    shared = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
                    wrapping_key = hkdf(shared, ephemeral + recipient, b"holdfast/1/x25519")
                elif key_file and not private and (body["kind"], kdf["algorithm"]) == ("key-file", "hkdf-sha256"):
                    wrapping_key = hkdf(secret, salt, b"holdfast/1/key-file")
                else:
                    continue
                try:
                    aad = b"holdfast/1/key-slot" + self.id + struct.pack("<I", epoch) + slot.encode()
                    key = AESGCM(wrapping_key).decrypt(wrapped[:12], wrapped[12:], aad)
                except InvalidTag:
                    continue
                info, keys = b"holdfast/1/earlier-key", []
                for number, text in enumerate(earlier):
                    aad = info + self.id + struct.pack("<II", epoch, number)
                    keys.append(AESGCM(hkdf(key, self.id, info)).decrypt(text[:12], text[12:], aad))
                found = max(found, keys + [key], key=len)
        if found:
            return found
        raise Unreadable(f"{passphrase_file or key_file} opens none of the repository's key slots")


class Cursor:
    """Takes values off the front of raw bytes."""

    def __init__(self, raw):
        self.raw, self.at = raw, 0

    def take(self, count):
        need(count <= len(self.raw) - self.at, "an entry is cut off")
        self.at += count
        return self.raw[self.at - count:self.at]

    def varint(self):
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                need(value < 1 << 64 and (byte or not shift), "a malformed varint")
                return value
        raise Unreadable("a malformed varint")

    def name(self):
        length = self.varint()
        need(length <= 128, "a name that is too long")
        return self.take(length).decode()

    def place(self, numbers):
        place = Place(*(self.varint() for _ in range(5)), self.take(32))
        if numbers is None or not place.frame_length:
            return place
        need(place.pack < len(numbers) and numbers[place.pack], "a pack that is not in the table")
        return place._replace(pack=numbers[place.pack] - 1)

    def patches(self, numbers):
        count = self.varint()
        need(count <= 1024, "too many patches")
        return [(self.varint(), self.place(numbers)) for _ in range(count)]

    def entry(self, numbers):
        path, kind = self.take(self.varint()), self.take(1)[0]
        need(kind <= LINK, NEWER)
        flags = self.varint()
        need(flags <= (HAS_CRC32C | HAS_PATCHES if kind == FILE else 0), NEWER)
        mode, size, mtime, target, crc32c, extents = self.varint(), self.varint(), self.varint(), b"", None, []
        if kind == LINK:
            target = self.take(self.varint())
        elif kind == FILE:
            crc32c = int.from_bytes(self.take(4), "little") if flags & HAS_CRC32C else None
            extents = [Extent(self.place(numbers), self.patches(numbers) if flags & HAS_PATCHES else [])
                       for _ in range(self.varint())]
        return Entry(path, kind, mode, size, mtime, target, crc32c, extents)


class Manifest:
    """A backup (manifest.md). Its entries are read again each time, frame by frame: those of 10 TB are 500 MB."""

    def __init__(self, repository, cluster, backup):
        self.record = repository.record(f"{cluster}/backups/{backup}/backup.json", "backup")
        self.repository, self.name = repository, f"{cluster}/backups/{backup}/manifest"
        self.packs, self.origins, self.stated, order = [], [], 0, ""
        with reading(self.name), open(repository.path(self.name), "rb") as file:
            self.object = Object(repository, self.name, MANIFEST)
            found = {"name": self.name, "size_bytes": self.object.size,
                     "sha256": hashlib.file_digest(file, "sha256").hexdigest()}
            need(found.items() <= self.record["manifest"].items(), "not the object that backup.json names")
            for section, cursor in self.sections():
                order += str(section)
                if section == HEADER:
                    self.header = json.loads(cursor.raw[1:])
                    full = self.header["extent_bytes"]
                    need(32768 <= full <= 16 * MIB and full % 32768 == 0, f"extents of {full} bytes")
                elif section == ORIGINS:
                    self.origins = self.listed_origins(cursor)
                elif section == PACKS:
                    self.packs, named = self.listed_packs(cursor)
                    need(named == [origin for origin, *_ in self.origins], "names other manifests than it refers to")
            need(re.fullmatch(f"{HEADER}{FILES}*({ORIGINS}[{FILES}{REFERENCES}]*)?{PACKS}", order), "sections out of order")
            need((self.header["cluster"], self.header["backup"]) == (cluster, backup), "of another backup")
            need((self.record["cluster"], self.record["backup_id"]) == (cluster, backup), "of another backup")
            for pack in self.packs:
                need(re.fullmatch(f"{NAME}/packs/{BACKUP}/\\d{{6}}\\.pack", pack.name), f"names a pack {pack.name}")

    def listed_origins(self, cursor):
        """The manifests whose frames this one refers to, each with the numbers that its packs have here."""
        count, origins = cursor.varint(), []
        need(count <= 4096, "refers to too many manifests")
        for _ in range(count):
            name, size, salt = cursor.name(), cursor.varint(), cursor.take(32)
            need(re.fullmatch(f"{NAME}/backups/{BACKUP}/manifest", name), f"refers to {name}")
            origins.append((name, size, salt, [cursor.varint() for _ in range(cursor.varint())]))
        need(cursor.at == len(cursor.raw), "bytes after the list of manifests")
        return origins

    def listed_packs(self, cursor):
        count, packs, name = cursor.varint(), [], b""
        need(count <= 1 << 20, "too many packs")
        for _ in range(count):
            shared = cursor.varint()
            need(shared <= len(name), "a name shares more than there is")
            name = name[:shared] + cursor.take(cursor.varint())
            need(len(name) <= 128, "a name that is too long")
            size, _live, flags = cursor.varint(), cursor.varint(), cursor.varint()
            need(flags <= HAS_IDENTITY, NEWER)
            packs.append(Pack(name.decode(), size, (cursor.take(32), cursor.take(4)) if flags else None))
        count = cursor.varint()
        need(count <= 4096, "refers to too many manifests")
        named = [cursor.name() for _ in range(count)]
        need(cursor.at == len(cursor.raw), "bytes after the list of packs")
        return packs, named

    def sections(self):
        packs_at, self.stated = None, 0
        for at, frame in self.object.frames():
            if packs_at is not None:
                need(frame.kind == TAIL and frame.raw == struct.pack("<Q", packs_at), "the tail does not point to the packs")
                return
            need(frame.kind == DATA and frame.raw and not frame.flags & LAST, f"frame at {at}: not a section")
            self.count(frame.raw)
            cursor = Cursor(frame.raw)
            section = cursor.take(1)[0]
            if section == PACKS:
                packs_at = at
            if section % 2:
                need(section <= ORIGINS, f"frame at {at}: {NEWER}")
                yield section, cursor
        raise Unreadable("no list of packs")

    def count(self, raw):
        self.stated += len(raw)
        need(self.stated <= 4 << 30, "more than 4 GiB in all frames")

    def referenced(self, cursor):
        """The files in the frames of other manifests, with the table of their packs."""
        while cursor.at < len(cursor.raw):
            origin, at, length, expected = cursor.varint(), cursor.varint(), cursor.varint(), cursor.take(32)
            need(origin < len(self.origins), "refers to a manifest that is not listed")
            name, size, salt, numbers = self.origins[origin]
            with reading(name):
                other = self.open_origin(name)
                need((other.size, other.salt) == (size, salt), "not the manifest that is referred to")
                frame = other.frame(at)
                need((frame.kind, frame.end) == (DATA, at + length), f"frame at {at}: not what is referred to")
                need(blake3(frame.raw).digest() == expected, f"frame at {at}: wrong BLAKE3")
                files = Cursor(frame.raw)
                need(files.take(1)[0] == FILES, f"frame at {at}: not of files")
            self.count(frame.raw)
            yield files, numbers

    @functools.lru_cache(8)
    def open_origin(self, name):
        return Object(self.repository, name, MANIFEST)

    def entries(self):
        for section, cursor in self.sections():
            with reading(self.name):
                frames = {FILES: [(cursor, None)], REFERENCES: self.referenced(cursor)}.get(section, [])
            for files, numbers in frames:
                while files.at < len(files.raw):
                    with reading(self.name):
                        entry = files.entry(numbers)
                    with reading(f"{self.name}: {os.fsdecode(entry.path)}"):
                        self.check(entry)
                    yield entry

    def check(self, entry):
        """Refuses what could not be restored, or not safely."""
        wrong_parts = {b"", b".", b".."}.intersection(entry.path.split(b"/"))
        need(not wrong_parts or (entry.path, entry.kind) == (b"", DIRECTORY), "not a path below the data directory")
        need(b"\0" not in entry.path + entry.target and entry.mode <= 0o7777, "malformed")
        left, full = entry.size, self.header["extent_bytes"]
        for place, patches in entry.extents:
            need(0 < place.length == (left if len(entry.extents) == 1 else min(left, full)), "extents that do not add up")
            left -= place.length
            self.check_place(place)
            for at, patch in patches:
                self.check_place(patch)
                need(0 < patch.length and at + patch.length <= place.length, "a patch after the end of its extent")
        need(left == 0, "extents that do not add up")

    def check_place(self, place):
        need(place.at + place.length <= 64 * MIB, "an extent beyond its frame")
        if place.frame_length == 0:
            need((place.pack, place.frame_at, place.at) == (0, 0, 0), "a hole with a place")
        else:
            need(place.pack < len(self.packs), "a pack that is not listed")
            need(place.frame_length <= 65 * MIB + 32, "a frame longer than any")
            need(place.frame_at + place.frame_length <= self.packs[place.pack].size, "a frame after the end of its pack")


class Restore:
    """Writes a backup into empty directories. global/pg_control comes last, so that nothing half-done can start."""

    def __init__(self, repository, manifest, to, tablespaces):
        self.repository, self.manifest, self.to = repository, manifest, os.fsencode(os.path.abspath(to))
        self.mapped, self.control = bool(tablespaces), None
        # Small files share frames and stand next to each other, so the last frames are worth keeping.
        self.frame, self.pack = functools.lru_cache(2)(self.open_frame), functools.lru_cache(8)(self.open_pack)
        # Paths of the links to tablespaces, and where what is below them goes.
        self.places = {}
        for entry in manifest.entries():
            if entry.kind == FILE and entry.path == CONTROL:
                need(not self.control, f"{manifest.name}: global/pg_control occurs twice")
                self.control = entry
            elif entry.kind == LINK and re.fullmatch(rb"pg_tblspc/[1-9]\d*", entry.path):
                place = tablespaces.pop(entry.path[10:].decode(), None)
                self.places[entry.path] = os.fsencode(os.path.abspath(place)) if place else entry.target
        need(self.control, f"{manifest.name}: no global/pg_control")
        need(not tablespaces, f"the backup has no tablespace {', '.join(tablespaces)} outside the data directory")
        for place in self.places.values():
            need(place.startswith(b"/") and os.path.commonpath([place, self.to]) not in (place, self.to),
                 f"a tablespace would be in {os.fsdecode(place)}: give another place with --tablespace OID=DIR")

    def open_pack(self, number):
        name, size, identity = self.manifest.packs[number]
        with reading(name):
            pack = Object(self.repository, name, PACK)
            need(pack.size == size, f"has {pack.size} bytes, but the manifest says {size}")
            need(not identity or pack.salt == identity[0], "not the object that the manifest names: another salt")
            return pack

    def open_frame(self, number, at, length):
        pack = self.pack(number)
        with reading(pack.name):
            frame = pack.frame(at)
            need((frame.kind, frame.flags & LAST, frame.end) == (DATA, 0, at + length),
                 f"frame at {at}: not what the manifest says")
            return frame.raw

    def place(self, path):
        parts = path.split(b"/")
        tablespace = self.places.get(b"/".join(parts[:2]))
        return os.path.join(tablespace, *parts[2:]) if tablespace else os.path.join(self.to, path).rstrip(b"/")

    def chunk(self, place, file_at):
        raw = self.frame(place.pack, place.frame_at, place.frame_length) if place.frame_length else bytes(place.length)
        chunk = raw[place.at:place.at + place.length]
        need(len(chunk) == place.length and blake3(chunk).digest() == place.hash, f"wrong BLAKE3 at {file_at}")
        return chunk

    def write(self, entry):
        crc32c, place = 0, self.place(entry.path)
        with open(place, "xb") as out:
            for base, patches in entry.extents:
                content = self.chunk(base, out.tell())
                for at, patch in patches:
                    # A later one covers an earlier one.
                    content = content[:at] + self.chunk(patch, out.tell() + at) + content[at + patch.length:]
                crc32c = google_crc32c.extend(crc32c, content)
                out.write(content) if base.frame_length or patches else out.seek(base.length, os.SEEK_CUR)
            need(entry.crc32c in (None, crc32c), "wrong CRC-32C")
            out.truncate(entry.size)
        os.chmod(place, entry.mode & 0o777)
        os.utime(place, (entry.mtime, entry.mtime))

    def restore(self, entry, made, directories):
        # Two entries may be called pg_tblspc/<oid>: the directory, which is outside, and the link to it.
        place = os.path.join(self.to, entry.path) if entry.kind == LINK else self.place(entry.path)
        # Through directories of the backup only, never through links: nothing may be written elsewhere.
        need(place in made or os.path.dirname(place) in made, "is in no directory of the backup")
        if entry.kind == DIRECTORY:
            if place not in made:
                os.mkdir(place)
            made.add(place)
            directories[place] = entry
        elif entry.kind == LINK:
            os.symlink(self.places.get(entry.path, entry.target), place)
            os.utime(place, (entry.mtime, entry.mtime), follow_symlinks=False)
        elif entry.path != CONTROL:
            self.write(entry)

    def run(self):
        made, directories = {self.to, *self.places.values()}, {}
        for place in made:
            os.makedirs(place, exist_ok=True)
            need(not os.listdir(place), f"{os.fsdecode(place)} is not empty")
        for entry in self.manifest.entries():
            with reading(os.fsdecode(entry.path)):
                self.restore(entry, made, directories)
        if self.mapped:
            # PostgreSQL makes the links again from this file when it starts.
            with open(os.path.join(self.to, b"tablespace_map"), "wb") as out:
                for link, place in self.places.items():
                    out.write(link[10:] + b" " + re.sub(rb"([\\\r\n])", rb"\\\1", place) + b"\n")
        os.sync()
        with reading(os.fsdecode(CONTROL)):
            self.write(self.control)
        for place, entry in reversed(directories.items()):
            os.chmod(place, entry.mode)
            os.utime(place, (entry.mtime, entry.mtime))
        os.sync()


class Archive:
    """The WAL of a claim, the newest if none is given (names.md, wal.md)."""

    def __init__(self, repository, cluster, number=None):
        claims = repository.list(f"{cluster}/claims", CLAIM)
        need(claims, f"{repository.directory} has no archive of a cluster {cluster}")
        number = number or max(int(name[:-5]) for name in claims)
        self.repository, self.folder = repository, f"{cluster}/wal/{number}"
        self.claim = repository.record(f"{cluster}/claims/{number}.json", "claim")
        need(self.claim["wal_codec"] in CODECS, f"claim {number}: {NEWER}")
        self.codec = CODECS.index(self.claim["wal_codec"])
        need((self.claim["number"], self.claim["cluster"]) == (number, cluster), f"claim {number}: of another name")

    def object_name(self, file):
        history = re.fullmatch(HISTORY, file)
        need(history or re.fullmatch(SEGMENT, file), f"{file} is not the name of a WAL file")
        folder = file[:8] if history else f"{file[:8]}/{file[:16]}"
        ending = ENDINGS[1 if history else self.codec] + (".enc" if self.repository.keys else "")
        return f"{self.folder}/{folder}/{file}.{ending}"

    def files(self):
        """All WAL files, in order. An object of another spelling is ignored."""
        found = set()
        for folder, _, names in os.walk(self.repository.path(self.folder)):
            for match in filter(None, (re.match(f"({HISTORY}|{SEGMENT})\\.[a-z]", name) for name in names)):
                if os.path.join(folder, match.string) == self.repository.path(self.object_name(match[1])):
                    found.add(match[1])
        return sorted(found)

    def fetch(self, file, to):
        name, kinds, codecs, length, digest = self.object_name(file), "", set(), 0, blake3()
        need(os.path.isfile(self.repository.path(name)), f"the archive does not hold {file}: there is no {name}")
        with reading(name), open(f"{to}.part", "wb") as out:
            for at, frame in Object(self.repository, name, WAL).frames():
                kinds += str(frame.kind)
                if frame.kind == DATA:
                    codecs.add(frame.codec)
                    length += out.write(frame.raw)
                    digest.update(frame.raw)
                elif frame.kind == FACTS:
                    facts, facts_at = json.loads(frame.raw), at
            need(re.fullmatch(f"{DATA}*{FACTS}{TAIL}", kinds), "frames out of order")
            need(frame.raw == struct.pack("<Q", facts_at), "the tail does not point to the facts")
            need(codecs <= {1 if file.endswith(".history") else self.codec}, "another codec than its name says")
            need(facts["file_name"] == file, f"holds {facts['file_name']}")
            need((facts["raw_len"], facts["blake3"]) == (length, digest.hexdigest()), "wrong length or BLAKE3")
            out.flush()
            os.fsync(out.fileno())
        os.rename(f"{to}.part", to)

    def fetch_all(self, to):
        os.makedirs(to, exist_ok=True)
        files, damaged = self.files(), 0
        for file in files:
            try:
                self.fetch(file, os.path.join(to, file))
            except Unreadable as e:
                damaged += 1
                print(f"error: {e}", file=sys.stderr)
        need(not damaged, f"{damaged} of {len(files)} WAL files are damaged and left out")


def complete_backups(repository, cluster):
    return [backup for backup in repository.list(f"{cluster}/backups", BACKUP)
            if os.path.isfile(repository.path(f"{cluster}/backups/{backup}/backup.json"))]


def show_claim(archive, cluster):
    segments = [file for file in archive.files() if len(file) == 24] or ["no segment"]
    print("{cluster}: claim {number}: PostgreSQL {pg_major}, system identifier {system_identifier}, WAL "
          .format(**archive.claim), " to ".join(sorted({segments[0], segments[-1]})), sep="")


def show(repository, cluster):
    need(not cluster or repository.list(f"{cluster}/claims", CLAIM), f"{repository.directory} has no cluster {cluster}")
    for cluster in [cluster] if cluster else repository.list("", NAME):
        for name in repository.list(f"{cluster}/claims", CLAIM):
            with skipping():
                show_claim(Archive(repository, cluster, int(name[:-5])), cluster)
        for backup in complete_backups(repository, cluster):
            with skipping():
                record = repository.record(f"{cluster}/backups/{backup}/backup.json", "backup")
                need(record["type"] in ("full", "incremental"), f"backup {backup}: {NEWER}")
                print("{cluster}: backup {backup_id}: {type}, PostgreSQL {pg_version}, claim {claim}, timeline {timeline}, "
                      "{start_lsn} to {stop_lsn}, {size_bytes} bytes".format(**record))


def restore(repository, cluster, backup, to, tablespaces):
    backups = complete_backups(repository, cluster)
    need(backups, f"{repository.directory} has no complete backup of a cluster {cluster}")
    need(backup in (None, *backups), f"there is no complete backup {backup}, only {', '.join(backups)}")
    manifest = Manifest(repository, cluster, backup or backups[-1])
    Restore(repository, manifest, to, dict(mapping.split("=", 1) for mapping in tablespaces)).run()
    print("restored backup {backup_id}; to start, it needs the WAL of claim {claim} from {start_segment} to "
          "{stop_segment} at least".format(**manifest.record), file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", metavar="REPOSITORY")
    parser.add_argument("command", metavar="COMMAND", choices=["list", "restore", "wal", "wal-all"])
    parser.add_argument("names", metavar="NAME", nargs="*")
    for option in ("--passphrase-file", "--key-file", "--to", "--backup"):
        parser.add_argument(option)
    parser.add_argument("--claim", type=int)
    parser.add_argument("--tablespace", action="append", default=[], metavar="OID=DIR")
    given = parser.parse_args()
    if len(given.names) not in {"list": (0, 1), "restore": (1,), "wal": (3,), "wal-all": (2,)}[given.command]:
        parser.error(f"see --help for the arguments of {given.command}")
    if (given.command == "restore") != bool(given.to) or not all("=" in mapping for mapping in given.tablespace):
        parser.error("see --help for the options of restore")
    os.umask(0o077)
    try:
        repository = Repository(given.repository, given.passphrase_file, given.key_file)
        if given.command == "list":
            show(repository, *given.names or [None])
        elif given.command == "restore":
            restore(repository, *given.names, given.backup, given.to, given.tablespace)
        elif given.command == "wal":
            Archive(repository, given.names[0], given.claim).fetch(*given.names[1:])
        else:
            Archive(repository, given.names[0], given.claim).fetch_all(given.names[1])
    except (Unreadable, OSError, LookupError, TypeError, ValueError) as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main()
