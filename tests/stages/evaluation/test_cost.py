from stages.evaluation.cost import reference_key, remember_reference, retention, said_of_proposals


def test_what_is_said_of_proposals():
    assert said_of_proposals({}) == {}
    assert said_of_proposals({"provider": "MCG", "trained_on_masks": 1}) == {
        "proposals": "MCG", "proposals_trained_on_masks": 1}


def test_retention(tmp_path):
    truth = tmp_path / "val_truth.json"
    truth.write_text("{}")
    key = reference_key(truth, {"detector": {"steps": 10}})
    other = reference_key(truth, {"detector": {"steps": 20}})
    reference = tmp_path / "reference.json"
    full = {"voc": {"AP50": 60.0, "AP75": 0.0}, "coco": {"AP": 40.0, "AP_large": 50.0}, "objects": {}}
    weak = {"voc": {"AP50": 45.0, "AP75": 1.0}, "coco": {"AP": 10.0}}
    assert "no run with method: masks" in retention(reference, key, weak)["reason"]
    remember_reference(reference, other, full)
    found = retention(reference, key, weak)
    assert found["available"] == 0
    assert "none on this data with this detector" in found["reason"]
    remember_reference(reference, key, full)
    assert retention(reference, key, weak) == {"available": 1, "voc": {"AP50": 75.0}, "coco": {"AP": 25.0}}
    assert retention(reference, key, full)["voc"] == {"AP50": 100.0}


def test_retention_of_lvis_ap(tmp_path):
    reference = tmp_path / "reference.json"
    full = {"voc": {}, "coco": {"AP": 40.0}, "lvis": {"AP": 20.0, "APr": 8.0, "APf": 0.0}}
    remember_reference(reference, "key", full)
    found = retention(reference, "key", {"voc": {}, "coco": {"AP": 10.0}, "lvis": {"AP": 15.0, "APr": 2.0, "APf": 1.0}})
    assert found["lvis"] == {"AP": 75.0, "APr": 25.0}
    assert "lvis" not in retention(reference, "key", {"voc": {}, "coco": {"AP": 10.0}})


def test_key_follows_the_truth(tmp_path):
    truth = tmp_path / "val_truth.json"
    truth.write_text("{}")
    before = reference_key(truth, {})
    truth.write_text("{} ")
    assert reference_key(truth, {}) != before
