"""Downloads: resumed where they stopped, verified, bounded, over https alone, and by one process at a time."""

import hashlib
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from site_for_tests import Authority, Site, make_authority, serving

from im2im_zoo.core.download import DownloadPolicy, _check_address, download
from im2im_zoo.core.errors import PackageError
from im2im_zoo.core.http import leads_inside

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
LOCAL = DownloadPolicy(local_http=True, timeout_s=10)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving({"/model.zip": CONTENT}) as state:
        yield state


def test_a_file_is_fetched_once_and_found_again_without_its_server(site: Site, tmp_path: Path) -> None:
    first = download(site.at("/model.zip"), sha256=SHA256, policy=LOCAL, cache=tmp_path)
    assert first.name == "model.zip"
    assert first.read_bytes() == CONTENT
    site.files.clear()
    assert download(f"{site.at('/model.zip')}#sha256={SHA256.upper()}", policy=LOCAL, cache=tmp_path) == first
    assert len(site.asked) == 1


def test_a_download_that_breaks_off_goes_on_where_it_stopped(site: Site, tmp_path: Path) -> None:
    site.cut_after = 700_000
    found = download(site.at("/model.zip"), sha256=SHA256, policy=LOCAL, cache=tmp_path)
    assert found.read_bytes() == CONTENT
    assert site.answered == [200, 206]
    (whole, rest) = site.asked
    assert whole[1] == ""
    assert 0 < int(rest[1].removeprefix("bytes=").rstrip("-")) <= 700_000


def test_what_was_left_by_a_process_that_died_is_gone_on_with(site: Site, tmp_path: Path) -> None:
    (entry,) = (download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path).parents[1],)
    (entry / "file" / "model.zip").unlink()
    (entry / "partial").write_bytes(CONTENT[:1000])
    (entry / "notes.json").write_text('{"partial": "\\"one\\""}')
    assert (
        download(site.at("/model.zip"), sha256=SHA256, policy=LOCAL, cache=tmp_path).read_bytes() == CONTENT
    )
    assert site.asked[-1][1] == "bytes=1000-"
    assert site.answered[-1] == 206


def test_a_partial_file_of_another_version_is_not_gone_on_with(site: Site, tmp_path: Path) -> None:
    entry = download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path).parents[1]
    (entry / "file" / "model.zip").unlink()
    (entry / "partial").write_bytes(b"x" * 1000)
    (entry / "notes.json").write_text('{"partial": "\\"older\\""}')
    assert (
        download(site.at("/model.zip"), sha256=SHA256, policy=LOCAL, cache=tmp_path).read_bytes() == CONTENT
    )
    assert site.answered[-1] == 200


def test_another_hash_is_refused_and_nothing_of_it_is_kept(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="was changed or damaged and is not kept"):
        download(site.at("/model.zip"), sha256="0" * 64, policy=LOCAL, cache=tmp_path)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > 1000]


@pytest.mark.parametrize("said", [True, False], ids=["announced", "not announced"])
def test_what_is_larger_than_allowed_is_refused_and_not_kept(site: Site, tmp_path: Path, said: bool) -> None:
    site.says_length = said
    with pytest.raises(PackageError, match="above the limit"):
        download(
            site.at("/model.zip"),
            policy=DownloadPolicy(max_bytes=len(CONTENT) - 1, local_http=True),
            cache=tmp_path,
        )
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and p.stat().st_size > 1000]


def test_a_file_without_hash_is_fetched_again_only_when_the_server_has_another(
    site: Site, tmp_path: Path
) -> None:
    assert download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path).read_bytes() == CONTENT
    assert download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path).read_bytes() == CONTENT
    assert site.answered == [200, 304]
    site.etag, site.files["/model.zip"] = '"two"', b"newer"
    assert download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path).read_bytes() == b"newer"


@pytest.mark.parametrize(
    "url", ["http://example.com/model.zip", "ftp://localhost/model.zip", "file:///etc/passwd", "https:///x"]
)
def test_only_https_is_fetched(url: str, tmp_path: Path) -> None:
    for policy in (DownloadPolicy(), LOCAL):
        with pytest.raises(PackageError, match="only https"):
            download(url, policy=policy, cache=tmp_path)
    with pytest.raises(PackageError, match="only https"):
        download("http://127.0.0.1:1/x", policy=DownloadPolicy(), cache=tmp_path)


@pytest.mark.parametrize("target", ["http://example.com/model.zip", "file:///etc/passwd"])
def test_a_redirection_away_from_https_is_not_followed(site: Site, tmp_path: Path, target: str) -> None:
    site.redirects["/model.zip"] = target
    with pytest.raises(PackageError, match=r"only https|could not be downloaded"):
        download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path)
    assert len(site.asked) == 1


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "[::1]", "[fe80::1]", "localhost", "[::ffff:127.0.0.1]"]
)  # fmt: skip
def test_a_server_elsewhere_does_not_redirect_into_the_local_network(host: str) -> None:
    inside, outside = f"https://{host}/model.zip", "https://8.8.8.8/model.zip"
    with pytest.raises(PackageError, match=r"redirects to .* in the local network"):
        _check_address(inside, DownloadPolicy(), outside)
    assert leads_inside(inside, outside)
    assert not leads_inside(outside, inside)
    assert not leads_inside(inside, inside)
    assert not leads_inside("https://[::1]/b", "https://127.0.0.1/a")


def test_redirections_without_end_are_an_error(site: Site, tmp_path: Path) -> None:
    site.redirects["/model.zip"] = "/model.zip"
    with pytest.raises(PackageError, match="could not be downloaded"):
        download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path)


def test_an_encoded_answer_is_refused_so_that_none_can_unpack_without_bound(
    site: Site, tmp_path: Path
) -> None:
    site.encoding = "gzip"
    with pytest.raises(PackageError, match="encoding"):
        download(site.at("/model.zip"), policy=LOCAL, cache=tmp_path)


def test_no_answer_and_no_such_file_are_errors_that_say_so(site: Site, tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="the server answers 404"):
        download(site.at("/other.zip"), policy=LOCAL, cache=tmp_path)
    with pytest.raises(PackageError, match="could not be downloaded"):
        download("http://127.0.0.1:1/model.zip", policy=LOCAL, cache=tmp_path)


def test_the_largest_size_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, size in [("20GB", 20 * 10**9), ("1.5 M", 1_500_000), ("100", 100)]:
        monkeypatch.setenv("IM2IM_ZOO_MAX_DOWNLOAD", text)
        assert DownloadPolicy.from_environment().max_bytes == size
    monkeypatch.setenv("IM2IM_ZOO_MAX_DOWNLOAD", "much")
    with pytest.raises(PackageError, match=r"IM2IM_ZOO_MAX_DOWNLOAD.*give one such as 4GB"):
        DownloadPolicy.from_environment()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate with")
    return make_authority(tmp_path_factory.mktemp("authority"))


def test_a_certificate_of_a_trusted_authority_is_taken_and_any_other_refused(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving({"/model.zip": CONTENT}, authority) as site:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(PackageError, match=r"certificate is not trusted .*SSL_CERT_FILE"):
            download(site.at("/model.zip"), sha256=SHA256, policy=DownloadPolicy(), cache=tmp_path)
        assert site.asked == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
        found = download(site.at("/model.zip"), sha256=SHA256, policy=DownloadPolicy(), cache=tmp_path)
        assert found.read_bytes() == CONTENT
        with pytest.raises(PackageError, match=r"certificate is not trusted \(.*mismatch"):
            download(
                site.at("/model.zip").replace("127.0.0.1", "localhost"),
                policy=DownloadPolicy(),
                cache=tmp_path,
            )


def test_a_redirection_from_https_to_http_is_refused(
    authority: Authority, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.certificate))
    with serving({}, authority) as secure:
        secure.redirects["/model.zip"] = site.at("/model.zip")
        with pytest.raises(PackageError, match="only https"):
            download(secure.at("/model.zip"), policy=DownloadPolicy(), cache=tmp_path)
    assert site.asked == []


def _download_at(url: str, cache: Path) -> None:
    assert download(url, sha256=SHA256, policy=LOCAL, cache=cache).read_bytes() == CONTENT


def test_two_processes_at_once_fetch_a_file_once(site: Site, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_download_at, args=(site.at("/model.zip"), tmp_path)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [p.exitcode for p in processes] == [0, 0]
    assert site.answered == [200]
