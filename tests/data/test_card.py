"""The data card: what it says of the data set, and whom a file shows by its name."""

from __future__ import annotations

import pytest

from pneumolib.data.card import CARD, Identity, parse_name


def test_the_counts_are_those_of_the_published_data_set():
    assert CARD.counts["train"] == {"NORMAL": 1341, "PNEUMONIA": 3875}
    assert CARD.counts["val"] == {"NORMAL": 8, "PNEUMONIA": 8}
    assert CARD.counts["test"] == {"NORMAL": 234, "PNEUMONIA": 390}
    assert CARD.n_images == 5856


def test_counts_match_only_as_a_whole():
    whole = {split: dict(counts) for split, counts in CARD.counts.items()}
    assert CARD.counts_match(whole)
    assert not CARD.counts_match({"test": whole["test"]})
    assert not CARD.counts_match(whole | {"train": {"NORMAL": 1340, "PNEUMONIA": 3875}})
    assert not CARD.counts_match(whole | {"train": {"NORMAL": 3875, "PNEUMONIA": 1341}})
    assert not CARD.counts_match(whole | {"more": {"NORMAL": 0, "PNEUMONIA": 0}})


def test_the_printed_card_shows_counts_origin_licence_and_every_defect():
    page = str(CARD)
    for part in ("1,341 normal, 3,875 pneumonia", "8 normal, 8 pneumonia", "234 normal, 390 pneumonia"):
        assert part in page
    for fact in (CARD.url, CARD.doi, CARD.licence, CARD.population, *CARD.defects):
        assert fact in page


@pytest.mark.parametrize(
    ("folder", "filename", "expected"),
    [
        ("PNEUMONIA", "person1946_bacteria_4875.jpeg", Identity("pneumonia", "bacterial", "bacteria:1946")),
        ("PNEUMONIA", "person88_virus_163.jpeg", Identity("pneumonia", "viral", "virus:88")),
        ("NORMAL", "IM-0115-0001.jpeg", Identity("normal", "normal", "IM:115")),
        ("NORMAL", "NORMAL2-IM-0381-0001.jpeg", Identity("normal", "normal", "NORMAL2-IM:381")),
        ("NORMAL", "NORMAL2-IM-1103-0001-0002.jpeg", Identity("normal", "normal", "NORMAL2-IM:1103")),
    ],
)
def test_the_four_families_of_names_tell_label_subtype_and_patient(folder: str, filename: str, expected: Identity):
    assert parse_name("train", folder, filename) == expected
    assert parse_name("test", folder.lower(), f"chest_xray/test/{filename.upper()}") == expected
    assert parse_name("val", folder.title(), filename.lower()) == expected


def test_the_same_number_in_four_families_is_four_people():
    ill = ["person1_bacteria_1.jpeg", "person1_virus_1.jpeg"]
    well = ["IM-0001-0001.jpeg", "NORMAL2-IM-0001-0001.jpeg"]
    patients = {parse_name("train", "PNEUMONIA", name).patient for name in ill}
    patients |= {parse_name("train", "NORMAL", name).patient for name in well}
    assert patients == {"bacteria:1", "virus:1", "IM:1", "NORMAL2-IM:1"}


def test_images_of_one_patient_share_the_key_whatever_follows_the_number():
    images = ["person7_bacteria_28.jpeg", "person7_bacteria_29.jpeg", "person007_bacteria_30.png"]
    assert {parse_name("train", "PNEUMONIA", name).patient for name in images} == {"bacteria:7"}
    images = ["IM-0115-0001.jpeg", "IM-0115-0001-0002.jpeg", "IM-115-0003.jpeg"]
    assert {parse_name("train", "NORMAL", name).patient for name in images} == {"IM:115"}


@pytest.mark.parametrize(
    "name", ["scan.png", "person_bacteria_1.jpeg", "person12_fungus_1.jpeg", "xperson12_virus_1.jpeg", "IM-0115-1.jpeg"]
)
def test_pneumonia_under_an_odd_name_is_unspecified_and_a_patient_of_its_own(name: str):
    identity = parse_name("train", "PNEUMONIA", name)
    assert (identity.label, identity.subtype) == ("pneumonia", "unspecified")
    assert identity.patient != parse_name("train", "PNEUMONIA", "other-" + name).patient
    assert identity.patient != parse_name("test", "PNEUMONIA", name).patient


@pytest.mark.parametrize("name", ["scan.png", "IM-115.jpeg", "XIM-0115-0001.jpeg", "person12_virus_1.jpeg"])
def test_normal_under_an_odd_name_is_a_patient_of_its_own(name: str):
    identity = parse_name("train", "NORMAL", name)
    assert (identity.label, identity.subtype) == ("normal", "normal")
    assert identity.patient != parse_name("train", "PNEUMONIA", name).patient
    assert identity.patient != parse_name("train", "NORMAL", name + ".tiff").patient
    assert identity.patient != parse_name("train", "NORMAL", "other-" + name).patient
    assert identity.patient != parse_name("test", "NORMAL", name).patient
