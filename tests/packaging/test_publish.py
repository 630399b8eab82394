"""Publishing on a stand-in for bioimage.io: what is sent, what is refused before, and how a broken upload continues."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from artifact_server import TOKEN, ArtifactServer, artifact_server
from publishable import contents, copy_package, read_fields

from im2im_zoo.core.errors import PackageError, PublishingError
from im2im_zoo.package import open_package
from im2im_zoo.packaging import publish_package
from im2im_zoo.packaging.publishing.publication import Publication, prepare_publication
from im2im_zoo.packaging.publishing.publish import upload_publication
from im2im_zoo.packaging.publishing.upload_record import open_record


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_package(tmp_path_factory.mktemp("publish") / "model")


@pytest.fixture(scope="module")
def prepared(complete: Path) -> Iterator[Publication]:
    with prepare_publication(complete, "bioimage.io") as publication:
        yield publication


@pytest.fixture
def publication(prepared: Publication, server: ArtifactServer) -> Publication:
    """The prepared publication on this server; tests share the seconds that its checks take."""
    return dataclasses.replace(prepared, server=server.address)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArtifactServer]:
    with artifact_server() as state:
        monkeypatch.setenv("BIOIMAGEIO_HYPHA_UPLOAD", state.address)
        monkeypatch.setenv("BIOIMAGEIO_HYPHA_UPLOAD_TOKEN", TOKEN)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        yield state


def findings(package: Path, to: str = "bioimage.io", **options: str) -> dict[str, tuple[str, str]]:
    """The severity and command of each finding, by its field."""
    with prepare_publication(package, to, **options) as publication:
        return {f.field: (f.severity, f.command) for f in publication.findings}


def test_all_files_of_the_rdf_arrive_byte_for_byte_and_a_review_is_requested(
    complete: Path, server: ArtifactServer
) -> None:
    seen: list[tuple[int, int]] = []
    published = publish_package(
        complete, "bioimage.io", progress=lambda done, total, _: seen.append((done, total))
    )
    (draft,) = server.drafts.values()
    assert draft.files == contents(complete)
    assert draft.manifest == {**read_fields(complete), "status": "request-review"}
    assert published.id == "bioimage-io/quick-ant-1"
    assert published.address.endswith("/bioimage-io/artifacts/quick-ant-1/files/rdf.yaml?version=stage")
    assert seen[-1] == (sum(map(len, contents(complete).values())),) * 2
    assert server.problems == []
    assert server.tokens_at_store == []  # the token goes to the manager only


def test_what_was_sent_can_be_opened_as_the_same_package(
    complete: Path, publication: Publication, server: ArtifactServer, tmp_path: Path
) -> None:
    upload_publication(publication)
    (draft,) = server.drafts.values()
    (tmp_path / "received").mkdir()
    for name, content in draft.files.items():
        (tmp_path / "received" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "received" / name).write_bytes(content)
    with open_package(tmp_path / "received") as received, open_package(complete) as sent:
        assert received.raw == sent.raw


def test_the_same_command_after_it_sends_nothing(
    complete: Path, publication: Publication, server: ArtifactServer
) -> None:
    upload_publication(publication)
    asked = len(server.asked)
    assert upload_publication(publication).already
    assert len(server.asked) == asked
    assert upload_publication(publication, restart=True).id == "bioimage-io/quick-ant-2"


@pytest.mark.parametrize(
    ("step", "status", "reason"),
    [
        ("create", 401, "BIOIMAGEIO_HYPHA_UPLOAD_TOKEN is wrong or has expired"),
        ("create", 403, "may not do this"),
        ("create", 500, "the server has a problem"),
        ("create", 0, "broke while sending the draft"),
        ("put_file", 403, "may not do this"),
        ("PUT test_input.npy", 413, r"test_input.npy \(98432 bytes\) .*larger than the server accepts"),
        ("PUT weights.onnx", 403, "its permission for this file has expired"),
        ("PUT weights.onnx", 503, "the server has a problem"),
        ("PUT weights.onnx", 0, "broke while sending weights.onnx"),
        ("edit", 500, "the server has a problem"),
        ("edit", 0, "broke while sending the request for a review"),
    ],
)
def test_the_same_command_completes_an_upload_that_failed(
    complete: Path, publication: Publication, server: ArtifactServer, step: str, status: int, reason: str
) -> None:
    server.fail = {step: [status]}
    with pytest.raises(PublishingError, match=reason) as failure:
        upload_publication(publication)
    assert "same command" in str(failure.value)
    assert TOKEN not in str(failure.value)
    assert all(draft.manifest.get("status") is None for draft in server.drafts.values())
    sent = [name for draft in server.drafts.values() for name in draft.files]
    if server.drafts:
        assert f"has {len(sent)} of {len(contents(complete))} files and is not in review" in str(
            failure.value
        )
    upload_publication(publication)
    (draft,) = server.drafts.values()
    assert draft.files == contents(complete)
    assert draft.manifest["status"] == "request-review"
    puts = [step for step in server.asked if step.startswith("PUT ")]
    assert len(puts) == len(contents(complete)) + step.startswith(
        "PUT "
    )  # no file is sent twice but the one that failed


def test_the_reason_of_the_server_is_shown_without_its_traceback(
    complete: Path, publication: Publication, server: ArtifactServer
) -> None:
    server.fail = {"create": [400]}
    server.details = {"create": "Traceback (most recent call last):\n  File x\nPermissionError: no access"}
    with pytest.raises(PublishingError, match=r"status 400 \(PermissionError: no access\)") as failure:
        upload_publication(publication)
    assert "Traceback" not in str(failure.value)


def test_a_refusal_with_status_200_is_one(
    complete: Path, publication: Publication, server: ArtifactServer
) -> None:
    server.fail = {"edit": [200]}
    server.details = {"edit": "not allowed"}
    with pytest.raises(PublishingError, match="refused the request for a review: not allowed"):
        upload_publication(publication)


def test_a_draft_that_was_deleted_is_begun_again_with_restart(
    complete: Path, publication: Publication, server: ArtifactServer
) -> None:
    server.fail = {"edit": [500]}
    with pytest.raises(PublishingError):
        upload_publication(publication)
    server.drafts.clear()
    with pytest.raises(PublishingError, match="--restart"):
        upload_publication(publication)
    assert upload_publication(publication, restart=True).files == len(contents(complete))


def test_a_changed_package_begins_a_draft_of_its_own(
    publication: Publication, server: ArtifactServer
) -> None:
    upload_publication(publication)
    changed = dataclasses.replace(publication.files[0], sha256="0" * 64)
    other = dataclasses.replace(publication, files=(changed, *publication.files[1:]))
    assert upload_publication(other).id == "bioimage-io/quick-ant-2"


def test_two_commands_do_not_upload_the_same_package_at_once(
    publication: Publication, server: ArtifactServer
) -> None:
    files = publication.files
    with open_record(server.address, files), pytest.raises(PublishingError, match="another process"):
        upload_publication(publication)
    assert server.asked == []


def test_a_complete_package_has_no_error_and_each_finding_names_a_command(complete: Path) -> None:
    assert findings(complete) == {"format_version": ("info", f"im2im-zoo upgrade {complete}")}


BARE = {
    "maintainers": None, "license": None, "description": "Short.", "cite": None, "tags": None, "covers": None,
    "documentation": None, "id": "quick-ant", "attachments": [{"source": "missing.txt"}],
}  # fmt: skip
POOR = {
    "authors": [{"name": "Ada"}], "license": {"source": "README.md"}, "description": "x" * 513, "tags": ["nuclei"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            BARE,
            {
                "maintainers": ("error", '--maintainer "NAME:GITHUB_USER"'),
                "license": ("error", "--license MIT"),
                "description": ("error", "--description"),
                "cite": ("error", "--cite"),
                "tags": ("error", "--tag"),
                "covers": ("error", "--cover"),
                "documentation": ("error", "--documentation"),
                "id": ("error", "--remove id"),
                "attachments[0]": ("error", ""),
            },
        ),
        (
            POOR,
            {
                "authors[0].orcid": ("warning", "--author 'Ada; orcid="),
                "license": ("warning", "--license MIT"),
                "description": ("warning", "--description"),
                "tags": ("warning", "--tag"),
            },
        ),
        (
            {"authors": [], "license": "CC-BY-NC-4.0"},
            {"authors": ("error", "--author"), "license": ("info", "")},
        ),
    ],
)
def test_what_the_server_refuses_is_found_before(
    fields: dict[str, Any], expected: dict[str, tuple[str, str]], tmp_path: Path
) -> None:
    found = findings(copy_package(tmp_path / "model", **fields))
    assert {where: found[where][0] for where in expected} == {k: v[0] for k, v in expected.items()}
    assert all(option in found[where][1] for where, (_, option) in expected.items())
    assert found.keys() == {*expected, "format_version"}


def test_a_licence_that_is_none_is_refused_in_one_line_with_the_command(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model", license="CC BY 4")
    with pytest.raises(PackageError) as failure:
        findings(package)
    assert "the license is not an SPDX identifier" in str(failure.value)
    assert f"im2im-zoo edit {package} --license MIT" in str(failure.value)
    assert len(str(failure.value)) < 400


def test_covers_beyond_the_limits_are_found(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model")
    PIL.Image.fromarray(np.zeros((100, 300), np.uint8)).save(package / "cover.png")
    assert findings(package)["covers[0]"] == ("error", f"im2im-zoo edit {package} --cover cover.png")
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    PIL.Image.fromarray(noise).save(package / "cover.png")
    assert findings(package)["covers[0]"][0] == "error"


def test_documentation_without_a_validation_is_found(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model")
    (package / "README.md").write_text("# A model\n", encoding="utf-8")
    assert findings(package)["documentation"][0] == "error"


def test_a_changed_file_and_a_missing_test_tensor_are_found(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model", inputs=None)
    rdf = read_fields(copy_package(tmp_path / "other"))
    del rdf["inputs"][0]["test_tensor"]
    package = copy_package(tmp_path / "without", inputs=rdf["inputs"])
    (package / "weights.onnx").write_bytes(b"changed")
    found = findings(package)
    assert found["inputs[0].test_tensor"][0] == "error"
    assert found["weights.onnx"][0] == "error"


def test_a_file_outside_the_package_is_an_error_and_not_listed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    package = copy_package(
        tmp_path / "model", attachments=[{"source": "link.txt"}, {"source": "https://example.org/x"}]
    )
    (package / "link.txt").symlink_to(tmp_path / "secret.txt")
    with prepare_publication(package, "bioimage.io") as publication:
        assert {f.field: f.code for f in publication.errors}["attachments[0]"] == "refused"
        assert {f.code for f in publication.errors} == {"refused", "remote_file"}
        assert "link.txt" not in {file.name for file in publication.files}


def test_nothing_is_sent_of_a_package_with_errors(server: ArtifactServer, tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model", license=None)
    with pytest.raises(PublishingError, match=r"nothing was sent:\n  license: .*\n.*--license MIT"):
        publish_package(package, "bioimage.io")
    assert server.asked == []


def test_the_hub_takes_what_bioimage_io_refuses_but_needs_a_repository(tmp_path: Path) -> None:
    package = copy_package(tmp_path / "model", maintainers=None, covers=None)
    found = findings(package, "huggingface")
    assert found["maintainers"][0] == found["covers"][0] == "warning"
    assert found[""][1].endswith("--repository OWNER/NAME")
    with prepare_publication(package, "huggingface", repository="ada/tiny-nuclei") as publication:
        assert publication.errors == ()
        names = {file.name for file in publication.files}
    assert {"README.md", "package/bioimageio.yaml", "package/weights.onnx"} <= names


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"BIOIMAGEIO_HYPHA_UPLOAD_TOKEN": ""}, "set the environment variable BIOIMAGEIO_HYPHA_UPLOAD_TOKEN"),
        ({"BIOIMAGEIO_HYPHA_UPLOAD_TOKEN": "a b"}, "is not a token"),
        ({"BIOIMAGEIO_HYPHA_UPLOAD": "http://example.org/create"}, "is not an https address"),
        ({"BIOIMAGEIO_HYPHA_UPLOAD": "https://example.org/"}, "does not end with /create"),
    ],
)
def test_a_token_goes_only_to_a_safe_server(
    complete: Path,
    server: ArtifactServer,
    variables: dict[str, str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(PublishingError, match=reason):
        publish_package(complete, "bioimage.io")
    assert server.asked == []


def test_a_file_of_settings_in_the_current_folder_does_not_choose_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, complete: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("BIOIMAGEIO_HYPHA_UPLOAD=https://example.org/create\n")
    with prepare_publication(complete, "bioimage.io") as publication:
        assert publication.server.startswith("https://hypha.aicell.io/")
