"""Fetching: pinned, checked by whose digest, patterns, offline with advice, nothing secret written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import CompletedProcess

import fetch
import huggingface_hub
import pytest
from w2s import hub_cache
from w2s.artifact import load
from w2s.errors import ConfigError, DataError, EnvironmentProblem

REVISION = "0123456789" * 4
CONTENT = b'{"a": 1}\n'
SHA256 = hashlib.sha256(CONTENT).hexdigest()
# Of the same content, by "git hash-object".
GIT_SHA1 = "cb5b2f69babc53f9145b45ad20b9a075d48717ef"
WEIGHTS = b"weights" * 100


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A local folder with a file at the top and one in a sub-folder."""
    for name in ("top.jsonl", "sub/deep.jsonl", "not-declared.jsonl"):
        path = tmp_path / "origin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
    return tmp_path / "origin"


def run(tmp_path: Path, *options: str) -> Path:
    """Run the stage; returns the manifest."""
    manifest = tmp_path / "resources" / "raw" / "manifest.json"
    fetch.main(["--output", str(manifest), *options])
    return manifest


def hub(
    *files: str, kind: str = "dataset", origin: str = "owner/name", revision: str = REVISION
) -> list[str]:
    """Options for a file of the hub."""
    return ["--kind", kind, "--origin", origin, "--revision", revision, "--files", *files]


class HubCache:
    """A folder laid out as the hub's cache, and in place of the hub library a download that leaves it as it is."""

    def __init__(self, folder: Path) -> None:
        self.repository = folder / "hub" / "datasets--owner--name"
        self.snapshot = self.repository / "snapshots" / REVISION
        self.snapshot.mkdir(parents=True)
        self.asked: list[dict[str, object]] = []

    def add(self, name: str, content: bytes = CONTENT, digest: str = "sha256") -> Path:
        """Store a file under its "sha256" or git "sha1" and link to it; returns the blob."""
        head = b"blob %d\0" % len(content) if digest == "sha1" else b""
        blob = self.repository / "blobs" / hashlib.new(digest, head + content).hexdigest()
        blob.parent.mkdir(exist_ok=True)
        blob.write_bytes(content)
        entry = self.snapshot / name
        entry.parent.mkdir(parents=True, exist_ok=True)
        entry.symlink_to(os.path.relpath(blob, entry.parent))
        return blob

    def download(self, repository: str, **settings: object) -> str:
        """Stands in for ``huggingface_hub.snapshot_download``."""
        self.asked.append({"repository": repository, **settings})
        return str(self.snapshot)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubCache:
    """An empty cache that takes the place of the hub; what is not in it does not exist."""
    made = HubCache(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return made


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Callable[[Exception], None]:
    """``refuse(error)`` lets every download end with the error."""

    def install(error: Exception) -> None:
        def download(*_: object, **__: object) -> str:
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    return install


def verified(manifest: Path) -> dict[str, str]:
    """How each file was verified, by the ledger."""
    return {name: entry["verified"] for name, entry in load(manifest).facts["ledger"].items()}


@pytest.mark.parametrize("name", ["q.csv", "q.csv.gz"])
def test_tables_of_questions_are_fetched(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(CONTENT)
    source = load(run(tmp_path, "--kind", "local", "--folder", str(tmp_path), "--files", f"{name}={SHA256}"))
    assert source.path(name).read_bytes() == CONTENT


def test_local_files_and_their_ledger(tmp_path: Path, origin: Path) -> None:
    local = ["--kind", "local", "--folder", str(origin), "--files", f"top.jsonl={SHA256}", "sub/deep.jsonl="]
    source = load(run(tmp_path, *local, "--licence", "MIT", "--terms", "offensive text"))
    assert source.path("sub/deep.jsonl").read_bytes() == CONTENT
    assert sorted(source.manifest["files"]) == ["sub/deep.jsonl", "top.jsonl"]
    assert source.facts == {
        "kind": "local",
        "origin": "",
        "revision": "",
        "licence": "MIT",
        "terms": "offensive text",
        "ledger": {
            "sub/deep.jsonl": {"bytes": 9, "sha256": SHA256, "verified": "not verified"},
            "top.jsonl": {"bytes": 9, "sha256": SHA256, "verified": "declared sha256"},
        },
    }


def test_a_local_file_that_is_edited_later_does_not_change_the_artifact(tmp_path: Path, origin: Path) -> None:
    source = load(run(tmp_path, "--kind", "local", "--folder", str(origin), "--files", "top.jsonl"))
    with (origin / "top.jsonl").open("ab") as stream:
        stream.write(b"more")
    assert source.path("top.jsonl").read_bytes() == CONTENT


def test_wrong_checksum_names_file_expected_and_got(tmp_path: Path, origin: Path) -> None:
    with pytest.raises(DataError, match=f"wrong sha256 of top.jsonl: expected {'0' * 64}, got {SHA256}"):
        run(tmp_path, "--kind", "local", "--folder", str(origin), "--files", f"top.jsonl={'0' * 64}")
    assert list((tmp_path / "resources").iterdir()) == []


def test_missing_file_and_folder(tmp_path: Path, origin: Path) -> None:
    with pytest.raises(DataError, match="(?s)'gone.jsonl' is not there.*origin"):
        run(tmp_path, "--kind", "local", "--folder", str(origin), "--files", "gone.jsonl=")
    with pytest.raises(DataError, match="folder is not there"):
        run(tmp_path, "--kind", "local", "--folder", str(origin / "no"), "--files", "gone.jsonl=")


@pytest.mark.parametrize("revision", ["", "main", "v1.0", REVISION[:39], REVISION.upper().replace("0", "G")])
def test_unpinned_revisions_are_refused(tmp_path: Path, revision: str) -> None:
    with pytest.raises(ConfigError, match="(?s)not pinned.*40 hex digits"):
        run(tmp_path, *hub(f"a.jsonl={SHA256}", revision=revision))


@pytest.mark.parametrize(
    ("file", "what"),
    [
        ("a.jsonl=abc", "'abc' is not a SHA-256"),
        (f"*.jsonl={SHA256}", "a pattern has a SHA-256"),
        (f"../*.jsonl={SHA256}", "plain path"),
        (f"../a.jsonl={SHA256}", "plain path"),
        (f"/etc/a.jsonl={SHA256}", "plain path"),
        (f"a.pkl={SHA256}", "not a kind of file"),
        (f"a.py={SHA256}", "not a kind of file"),
        (f"manifest.json={SHA256}", "name of a record"),
    ],
)
def test_bad_declarations_are_refused(tmp_path: Path, file: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s){what}"):
        run(tmp_path, *hub(file))


def test_a_file_declared_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="declared twice"):
        run(tmp_path, *hub(f"a.jsonl={SHA256}", f"a.jsonl={SHA256}"))


def test_an_address_is_no_repository(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a repository") as caught:
        run(tmp_path, *hub(f"a.jsonl={SHA256}", origin="https://user:secret@hub/x"))
    assert "--origin" in str(caught.value)


def test_hub_files_are_asked_for_by_kind_and_revision(
    tmp_path: Path, cache: HubCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    cache.add("sub/deep.jsonl")
    manifest = run(tmp_path, *hub(f"sub/deep.jsonl={SHA256}", kind="model"))
    asked = {"repository": "owner/name", "repo_type": "model", "revision": REVISION}
    assert cache.asked == [{**asked, "allow_patterns": ["sub/deep.jsonl"], "etag_timeout": 30}]
    assert load(manifest).path("sub/deep.jsonl").read_bytes() == CONTENT
    assert not load(manifest).path("sub/deep.jsonl").is_symlink()
    assert load(manifest).facts["revision"] == REVISION
    written = "".join(path.read_text() for path in manifest.parent.rglob("*") if path.is_file())
    assert "secretsecret" not in written


def test_names_and_patterns_and_how_each_file_was_verified(tmp_path: Path, cache: HubCache) -> None:
    cache.add("config.json", digest="sha1")
    cache.add("tokenizer.json")
    cache.add("sub/vocab.json", b"{}", digest="sha1")
    cache.add("merges.txt", b"a b", digest="sha1")
    cache.add("readme.txt", b"not declared", digest="sha1")
    cache.add("pytorch_model.bin", WEIGHTS)
    declared = [f"config.json={SHA256}", "*.json=", "merges.txt=", "*.bin="]
    manifest = run(tmp_path, *hub(*declared, kind="model"))
    assert cache.asked[0]["allow_patterns"] == ["config.json", "*.json", "merges.txt", "*.bin"]
    assert verified(manifest) == {
        "config.json": "declared sha256",
        "merges.txt": "hub git sha1",
        "pytorch_model.bin": "hub sha256",
        "sub/vocab.json": "hub git sha1",
        "tokenizer.json": "hub sha256",
    }
    source = load(manifest)
    assert source.facts["ledger"]["pytorch_model.bin"]["sha256"] == hashlib.sha256(WEIGHTS).hexdigest()
    assert source.facts["ledger"]["pytorch_model.bin"]["bytes"] == 700
    assert sorted(source.manifest["files"]) == sorted(verified(manifest))


@pytest.mark.parametrize("declared", [["*.json=", f"a.json={'1' * 64}"], [f"a.json={'1' * 64}", "*.json="]])
def test_a_declared_path_wins_over_a_pattern(tmp_path: Path, cache: HubCache, declared: list[str]) -> None:
    cache.add("a.json")
    with pytest.raises(DataError, match=f"wrong sha256 of a.json: expected {'1' * 64}, got {SHA256}"):
        run(tmp_path, *hub(*declared))


def test_git_digests(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(CONTENT)
    assert hub_cache.git_sha1(tmp_path / "a.json") == GIT_SHA1


@pytest.mark.parametrize(("digest", "expected"), [("sha256", SHA256), ("sha1", GIT_SHA1)])
def test_a_blob_that_was_altered_is_refused(
    tmp_path: Path, cache: HubCache, digest: str, expected: str
) -> None:
    blob = cache.add("a.json", digest=digest)
    blob.write_bytes(CONTENT.replace(b"1", b"2"))
    with pytest.raises(DataError, match=f"wrong {digest} of a.json: expected {expected}, got ") as caught:
        run(tmp_path, *hub("*.json="))
    assert f"delete {blob}" in str(caught.value)
    assert list((tmp_path / "resources").iterdir()) == []


def test_a_blob_may_be_a_link_into_a_store_with_names_of_its_own(tmp_path: Path, cache: HubCache) -> None:
    blob = cache.add("a.bin", WEIGHTS)
    stored = tmp_path / "hub" / "blobs" / "77" / ("7" * 64)
    stored.parent.mkdir(parents=True)
    blob.rename(stored)
    blob.symlink_to(stored)
    assert verified(run(tmp_path, *hub("a.bin="))) == {"a.bin": "hub sha256"}
    stored.write_bytes(b"other")
    with pytest.raises(DataError, match="wrong sha256 of a.bin"):
        run(tmp_path, *hub("a.bin="))


def test_without_links_the_hub_is_asked_for_its_digests(
    tmp_path: Path, cache: HubCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache.snapshot / "a.json").write_bytes(CONTENT)
    (cache.snapshot / "b.bin").write_bytes(WEIGHTS)
    lfs = {"oid": hashlib.sha256(WEIGHTS).hexdigest(), "size": 700, "pointerSize": 130}
    listed = [
        huggingface_hub.RepoFile(path="a.json", size=9, oid=GIT_SHA1),
        huggingface_hub.RepoFile(path="b.bin", size=700, oid="2" * 40, lfs=lfs),
    ]
    asked = []

    def paths_info(
        _: object, repository: str, paths: list[str], **settings: object
    ) -> list[huggingface_hub.RepoFile]:
        asked.append((repository, paths, settings))
        return listed

    monkeypatch.setattr(huggingface_hub.HfApi, "get_paths_info", paths_info)
    manifest = run(tmp_path, *hub("a.json=", "*.bin="))
    assert verified(manifest) == {"a.json": "hub git sha1", "b.bin": "hub sha256"}
    assert asked == [("owner/name", ["a.json", "b.bin"], {"repo_type": "dataset", "revision": REVISION})]
    (cache.snapshot / "b.bin").write_bytes(b"other")
    with pytest.raises(DataError, match="wrong sha256 of b.bin"):
        run(tmp_path, *hub("a.json=", "*.bin="))


def test_without_links_the_list_that_the_cache_kept_will_do(tmp_path: Path, cache: HubCache) -> None:
    (cache.snapshot / "a.json").write_bytes(CONTENT)
    trees = cache.repository / "trees"
    trees.mkdir()
    listing = {"format_version": 1, "files": {"a.json": {"size": 9, "blob_id": GIT_SHA1}}}
    (trees / f"{REVISION}.json").write_text(json.dumps(listing))
    assert verified(run(tmp_path, *hub("a.json="))) == {"a.json": "hub git sha1"}


def test_without_any_digest_of_the_hub_a_sha256_must_be_declared(tmp_path: Path, cache: HubCache) -> None:
    (cache.snapshot / "a.json").write_bytes(CONTENT)
    with pytest.raises(EnvironmentProblem, match="(?s)cannot verify a.json: .*declare path=sha256"):
        run(tmp_path, *hub("*.json="))
    assert verified(run(tmp_path, *hub(f"a.json={SHA256}"))) == {"a.json": "declared sha256"}


@pytest.mark.parametrize("missing", ["gone.json", "*.txt", "A.json", "b.json"])
def test_each_declaration_must_fit_a_file(tmp_path: Path, cache: HubCache, missing: str) -> None:
    cache.add("a.json")
    cache.add("sub/b.json", b"{}")
    with pytest.raises(
        DataError, match=rf"(?s)nothing fits '{missing.replace('*', '[*]')}'.*no such file.*owner"
    ):
        run(tmp_path, *hub("a.json=", f"{missing}="))


@pytest.mark.parametrize(
    ("name", "what"), [("a.pkl", "not a kind of file"), ("manifest.json", "name of a record")]
)
def test_what_a_pattern_matches_must_be_a_kind_of_file(
    tmp_path: Path, cache: HubCache, name: str, what: str
) -> None:
    cache.add("a.json")
    cache.add(name, b"{}")
    with pytest.raises(ConfigError, match=rf"(?s){name}' is .*{what}.*--files [*]"):
        run(tmp_path, *hub("*="))


def index(*shards: str) -> bytes:
    """An index of weights spread over the shards."""
    return json.dumps({"weight_map": {f"layer.{at}": shard for at, shard in enumerate(shards)}}).encode()


@pytest.mark.parametrize(("stem", "suffix"), [("model", "safetensors"), ("pytorch_model", "bin")])
def test_all_shards_of_an_index_must_be_there(
    tmp_path: Path, cache: HubCache, stem: str, suffix: str
) -> None:
    shards = [f"{stem}-0000{at}-of-00002.{suffix}" for at in (1, 2)]
    cache.add(f"{stem}.{suffix}.index.json", index(*shards, shards[0]))
    cache.add(shards[0], WEIGHTS)
    with pytest.raises(DataError, match=rf"(?s)'{shards[1]}'.*1 of 2.*where: +{stem}.{suffix}.index.json"):
        run(tmp_path, *hub("*.json=", f"*.{suffix}=", kind="model"))
    cache.add(shards[1], b"more" + WEIGHTS)
    assert set(verified(run(tmp_path, *hub("*.json=", f"*.{suffix}=", kind="model")))) > set(shards)


def test_an_index_of_pickles_beside_safetensors_does_not_count(tmp_path: Path, cache: HubCache) -> None:
    cache.add("pytorch_model.bin.index.json", index("pytorch_model-00001-of-00001.bin"))
    cache.add("model.safetensors", WEIGHTS)
    manifest = run(tmp_path, *hub("*.json=", "*.safetensors=", kind="model"))
    assert set(verified(manifest)) == {"model.safetensors", "pytorch_model.bin.index.json"}


@pytest.mark.parametrize("content", [b"{", b"[]", b"{}", b'{"weight_map": 1}'])
def test_an_index_that_is_none_is_named(tmp_path: Path, cache: HubCache, content: bytes) -> None:
    cache.add("model.safetensors.index.json", content)
    with pytest.raises(DataError, match="(?s)not an index of weights.*model.safetensors.index.json"):
        run(tmp_path, *hub("*.json=", kind="model"))


def offline(tmp_path: Path) -> Mapping[str, str]:
    """Environment of a process without network whose cache is the fixture's."""
    return {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(tmp_path),
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_TOKEN": "hf_secretsecret",
    }


def test_without_network_the_cache_is_taken(
    tmp_path: Path, cache: HubCache, run_stage: Callable[..., CompletedProcess[str]]
) -> None:
    cache.add("a.json", digest="sha1")
    cache.add("b.bin", WEIGHTS)
    manifest = tmp_path / "resources" / "raw" / "manifest.json"
    done = run_stage("fetch", "--output", manifest, *hub("*.json=", "b.bin="), env=offline(tmp_path))
    assert done.returncode == 0, done.stderr
    assert verified(manifest) == {"a.json": "hub git sha1", "b.bin": "hub sha256"}
    assert "patterns match what the hub's cache holds" in done.stderr
    done = run_stage("fetch", "--output", manifest, *hub("*.json=", "c.txt="), env=offline(tmp_path))
    assert done.returncode == 2
    assert "nothing fits 'c.txt': the hub cannot be reached" in done.stderr


def test_without_network_the_message_says_how_to_prefetch(
    tmp_path: Path, run_stage: Callable[..., CompletedProcess[str]]
) -> None:
    manifest = tmp_path / "resources" / "raw" / "manifest.json"
    files = hub(f"a.jsonl={SHA256}", "*.json=")
    done = run_stage("fetch", "--output", manifest, *files, env=offline(tmp_path))
    assert done.returncode == 2
    advice = f"hf download owner/name --include a.jsonl --include '*.json' --repo-type dataset --revision {REVISION}"
    assert advice in done.stderr
    assert "--kind local" in done.stderr and "Traceback" not in done.stderr
    assert "secretsecret" not in done.stderr + done.stdout
    assert list((tmp_path / "resources").iterdir()) == []


def test_errors_of_the_hub_lose_the_credentials_in_their_addresses(
    tmp_path: Path, refuse: Callable[[Exception], None]
) -> None:
    refuse(
        OSError("403 for url 'https://me:pw1@cdn.hub.co/repo/file?X-Signature=abc123&Expires=9'\nmore abc123")
    )
    with pytest.raises(EnvironmentProblem, match="https://cdn.hub.co/repo/file'") as caught:
        run(tmp_path, *hub(f"a.jsonl={SHA256}"))
    assert "abc123" not in str(caught.value) and "pw1" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_connection_is_no_bug(tmp_path: Path, refuse: Callable[[Exception], None]) -> None:
    import httpx

    refuse(httpx.ConnectError("name or service not known"))
    with pytest.raises(EnvironmentProblem, match="cannot be reached.*ConnectError: name or service"):
        run(tmp_path, *hub("a.jsonl="))


def test_a_full_disk_is_called_that(tmp_path: Path, refuse: Callable[[Exception], None]) -> None:
    import errno

    refuse(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(EnvironmentProblem, match="no room to write"):
        run(tmp_path, *hub("a.jsonl="))


@pytest.mark.parametrize(
    ("error", "what"),
    [
        ("GatedRepoError", "gated"),
        ("RepositoryNotFoundError", "no such repository"),
        ("RevisionNotFoundError", "no such revision"),
        ("RemoteEntryNotFoundError", "no such file"),
    ],
)
def test_refusals_of_the_hub_are_told_apart(
    tmp_path: Path, refuse: Callable[[Exception], None], error: str, what: str
) -> None:
    import httpx
    from huggingface_hub import errors

    response = httpx.Response(404, request=httpx.Request("GET", "https://hub/x"))
    refuse(getattr(errors, error)("no", response=response))
    with pytest.raises(
        (DataError, EnvironmentProblem), match=f"(?s){what}.*owner/name at {REVISION}, files a.jsonl"
    ):
        run(tmp_path, *hub(f"a.jsonl={SHA256}"))


def test_the_ledger_is_plain_json(tmp_path: Path, origin: Path) -> None:
    manifest = run(tmp_path, "--kind", "local", "--folder", str(origin), "--files", "top.jsonl=")
    record = json.loads(manifest.read_text())
    assert record["stage"] == "fetch" and record["spec"]["files"] == ["top.jsonl="]


def test_the_same_local_files_elsewhere_are_the_same_source(tmp_path: Path, origin: Path) -> None:
    arguments = ["--kind", "local", "--files", f"top.jsonl={SHA256}"]
    first = run(tmp_path / "a", *arguments, "--folder", str(origin))
    moved = origin.rename(tmp_path / "moved")
    second = run(tmp_path / "b", *arguments, "--folder", str(moved))
    assert second.read_bytes() == first.read_bytes()
    assert load(second).run["measured"]["folder"] == str(moved)
