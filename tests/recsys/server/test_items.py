"""New items over HTTP."""

from __future__ import annotations

from pathlib import Path

from asked import serving

from recsys.serving.releases import Releases


def test_a_server_adds_items_and_answers_with_them(text_bundle: Path, tmp_path: Path) -> None:
    Releases(tmp_path).publish(text_bundle)
    new = {"item": "n3", "title": "Item number 12", "genre": "g0", "words": [], "blurb": "new"}
    with serving(tmp_path / "current", accept_items=tmp_path) as asking:
        before = asking.get("/readyz").json()["bundle"]
        added = asking.post("/items", {"items": [new, {"item": "i05", "title": None}]})
        assert added.status_code == 200, added.text
        assert added.json() == {"received": 2, "new": 1, "version": Releases(tmp_path).current}
        assert asking.get("/readyz").json()["bundle"] != before
        answer = asking.post("/recommend", {"history": ["i03"], "k": 42}).json()["answers"][0]
        assert "n3" in [each["item"] for each in answer["items"]]
        again = asking.post("/items", {"items": [new]})
        assert again.json()["new"] == 0 and again.json()["version"] == added.json()["version"]
        wrong = asking.post("/items", {"items": [{**new, "item": "n4", "colour": "red"}]})
        assert wrong.status_code == 422 and "'colour'" in wrong.json()["error"]
    with serving(tmp_path / "current") as asking:
        assert asking.post("/items", {"items": [new]}).status_code == 404
