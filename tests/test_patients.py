"""Whose eyes the cases are: patterns and tables, and what goes by patient, from splits to the notes of tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_case
from small_runs import Lines, evaluation_of, identity, settings

from fundus_seg.config.resolve import resolve_sources
from fundus_seg.data.cache import split_digest
from fundus_seg.data.check import check_root
from fundus_seg.data.dataset import Truth
from fundus_seg.data.files import SPLITS, Case, hashed_split
from fundus_seg.data.layout import open_root
from fundus_seg.data.patients import PatientPattern, read_table
from fundus_seg.data.shipping import pack, unpack
from fundus_seg.errors import DataError
from fundus_seg.evaluation.metric_table import METRICS
from fundus_seg.evaluation.records import read_evaluation, write_evaluation
from fundus_seg.evaluation.score_case import score_cases
from fundus_seg.evaluation.which_cases import cases_to_score
from fundus_seg.protocol import Scoring, source_half
from fundus_seg.reporting.frames import case_values
from fundus_seg.reporting.notes import patients_note
from fundus_seg.training.run_data import load_run_data

CLINIC = """\
{top}
domains:
  north:
    images: "north/*.png"
    masks: "masks/{{name}}.png"
    {north}
  south:
    train: {{images: "south/train/*.png", masks: "masks/{{name}}.png"}}
    test: {{images: "south/test/*.png", masks: "masks/{{name}}.png"}}
    {south}
"""


@pytest.fixture
def clinics(tmp_path):
    """A function that describes two clinics: north has both eyes of 12 patients and no splits, south has splits."""
    rng = np.random.default_rng(0)
    north = [f"north/P{number:02}_{eye}.png" for number in range(12) for eye in ("OD", "OS")]
    south = [f"south/train/S{number}_OD.png" for number in range(3)]
    south += [f"south/test/{name}.png" for name in ("S0_OS", "S7_OD", "S8_OD", "P03_OX", "P04_OX")]
    for file in (*north, *south):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        photograph, mask = draw_case(rng, 64)
        photograph.save(tmp_path / file)
        mask.save(tmp_path / "masks" / Path(file).name)

    def describe(top="", north="", south=""):
        path = tmp_path / "domains.yaml"
        path.write_text(CLINIC.format(top=top, north=north, south=south))
        return path

    return describe


def split_of(root, domain):
    return {case.name: split for split in SPLITS for case in root.cases(domain, split)}


class TestWhoseEyes:
    @pytest.mark.parametrize(
        ("pattern", "name", "path", "patient"),
        [
            ("RET{patient}O[DS]", "RET002OD", "x/RET002OD.jpg", "002"),
            ("RET{patient}O[DS]", "RET002OX", "x/RET002OX.jpg", None),
            ("{patient}_*", "a_b_OD", "a_b_OD.png", "a_b"),  # the eye stands behind the last dash
            ("{patient}-?", "N-4-L", "N-4-L.png", "N-4"),
            ("é{patient}_{eye}", "é1_left_2", "e\u0301.png", "1_left"),
            ("{patient}/*", "0001", "data/P12/0001.png", "P12"),
            ("{patient}/O?/*.jpg", "0001", "data/P12/OD/0001.JPG", "P12"),
            ("{patient}/{patient}_*.png", "P1_OD", "data/P1/P1_OD.png", "P1"),
            ("{patient}/{patient}_*.png", "P1_OD", "data/P2/P1_OD.png", None),
            ("a/{patient}/b/*", "P1", "b/P1.png", None),
        ],
    )
    def test_a_pattern(self, pattern, name, path, patient):
        assert PatientPattern(pattern).patient("any", name, Path(path)) == patient

    @pytest.mark.parametrize("delimiter", [",", ";", "\t"])
    def test_a_table_names_cases_as_it_likes(self, tmp_path, delimiter):
        rows = ["file; id", "images/a.JPG;7", "b;8", r"C:\eyes\c.d.png;9", "e;", ";3", "f", ""]
        table = tmp_path / "eyes.csv"
        table.write_text("\ufeff" + "\r\n".join(rows).replace(";", delimiter), "utf8", newline="")
        found = read_table(table, case="file", patient="id")
        assert [found.patient("A", name, Path()) for name in ("a", "b", "c.d", "e", "f")] == ["7", "8", "9", None, None]

    def test_a_column_of_domains_tells_equal_names_apart(self, tmp_path):
        table = tmp_path / "eyes.csv"
        table.write_text("case,patient,centre\nn1,1,A\nn1,2,B\n")
        found = read_table(table, domain="centre")
        assert [found.patient(domain, "n1", Path()) for domain in "ABC"] == ["1", "2", None]
        with pytest.raises(
            DataError, match=r"eyes\.csv:3: n1 has two patients, 1 and 2; leave one, or name the column"
        ):
            read_table(table)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"case,person\na,1\n", "its first line lacks a column of case, patient, with commas"),
            (b"", "its first line lacks a column"),
            (b"case,patient\n\xe9,1\n", "not a text file in UTF-8"),
            (b'case,patient\n"' + b"a" * 200_000 + b'",1\n', "not a CSV table"),
        ],
    )
    def test_a_table_that_cannot_be_read_is_named(self, tmp_path, content, message):
        (tmp_path / "eyes.csv").write_bytes(content)
        with pytest.raises(DataError, match=rf"eyes\.csv: .*{message}|eyes\.csv:?\d*: {message}"):
            read_table(tmp_path / "eyes.csv")

    def test_a_table_that_is_not_there_is_named(self, clinics):
        with pytest.raises(
            DataError, match=r"eyes\.csv: cannot be read \(No such file or directory\); give a CSV table"
        ):
            open_root(clinics(north="patient: {table: eyes.csv}"))

    def test_a_fault_in_the_key_has_its_line(self, clinics):
        with pytest.raises(DataError, match=r"domains\.yaml:6: 'P01' lacks '\{patient\}'"):
            open_root(clinics(north="patient: P01"))
        with pytest.raises(DataError, match=r"domains\.yaml:6: unknown placeholder '\{name\}'"):
            open_root(clinics(north='patient: "{name}_{patient}"'))
        for pattern in ("{patient}{eye}", "*{patient}_OD", "{patient}*/*"):
            with pytest.raises(DataError, match=r"domains\.yaml:6: .* does not tell where the patient ends: write"):
                open_root(clinics(north=f'patient: "{pattern}"'))
        with pytest.raises(DataError, match=r"domains\.yaml:6: unknown key 'cases': did you mean 'case'"):
            open_root(clinics(north="patient: {table: eyes.csv, cases: file}"))

    def test_a_pattern_that_fits_no_case_is_an_error_and_one_that_fits_some_a_warning(self, clinics):
        with pytest.raises(DataError, match=r"yaml: no case of north has a patient by the pattern 'RET.*, as 'P"):
            open_root(clinics(north='patient: "RET{patient}"'))
        progress = Lines()
        root = open_root(clinics(south='patient: "S{patient}_O[DS]"'), progress=progress)
        assert [case.patient for case in root.cases("south", "test")] == [None, None, "0", "7", "8"]
        (line,) = progress.lines
        assert (
            "warning: south: 2 cases of 8 without a patient by the pattern 'S{patient}_O[DS]' ('P03_OX' first)" in line
        )

    def test_a_manifest_beside_the_file_is_read_by_domain_and_set(self, clinics):
        path = clinics()
        eyes = [f"P{number:02}_{eye}" for number in range(12) for eye in ("OD", "OS")]
        rows = [f"papila,north,train,{name},{name[1:3]},right" for name in eyes]
        rows += ["other,south,train,S0_OD,,left"]
        header = "set,domain,split,name,patient,eye"
        (path.parent / "manifest.csv").write_text("\n".join([header, *rows]))
        root = open_root(path)
        assert set(root.patients) == {"north"}
        assert {case.patient for split in SPLITS for case in root.cases("north", split)} == {
            f"{number:02}" for number in range(12)
        }
        own = open_root(clinics(north='patient: "{patient}_O[DS]"'))
        assert own.cases("north", "train")[0].patient.startswith("P")  # what the file says goes first
        (path.parent / "manifest.csv").write_text("name,sha256\nP01_OD,0\n")
        assert open_root(clinics()).patients == {}

    def test_a_table_travels_with_its_root(self, clinics):
        path = clinics(north="patient: {table: eyes.csv}")
        (path.parent / "eyes.csv").write_text("case,patient\nP01_OD,one\nP01_OS,one\n")
        root, arrived = open_root(path), open_root(unpack(pack(open_root(path))))
        assert split_of(arrived, "north") == split_of(root, "north")
        assert {case.patient for case in arrived.cases("north", split_of(root, "north")["P01_OD"])} >= {"one"}


class TestSplits:
    def test_the_eyes_of_a_patient_stay_together(self, clinics):
        splits = split_of(open_root(clinics(north='patient: "{patient}_O[DS]"')), "north")
        assert set(splits.values()) == {"train", "test"}
        for name, split in splits.items():
            assert split == hashed_split(name[:3])
        apart = split_of(open_root(clinics()), "north")
        assert all(split == hashed_split(name) for name, split in apart.items())
        assert any(apart[f"P{number:02}_OD"] != apart[f"P{number:02}_OS"] for number in range(12))

    def test_so_do_they_in_the_halves_of_a_test_split(self, clinics):
        path = clinics(north='patient: "{patient}_O[DS]"')
        config = resolve_sources(settings("data.size=32", holdout="south"), ("north", "south"), where=path)
        data = load_run_data(config, open_root(path))
        chosen = data.validation["north"]
        names = {chosen.split.names[number] for number in chosen.cases}
        test = open_root(path).cases("north", "test")
        assert names == {case.name for case in test if source_half(case.name[:3]) == "select"}
        content = {"inputs": data.inputs, "provenance": {"data_root": str(path)}}
        scored = cases_to_score("in-domain", None, content, open_root(path), config)
        assert {case.patient for case in scored}.isdisjoint(name[:3] for name in names)

    def test_a_split_has_the_digest_of_before_unless_patients_are_known(self, clinics):
        cases = open_root(clinics()).cases("south", "test")
        known = open_root(clinics(south='patient: "{patient}_*"')).cases("south", "test")
        assert split_digest(known) != split_digest(cases)
        assert split_digest([replace(case, patient=None) for case in known]) == split_digest(cases)


class TestLeaks:
    def found(self, path):
        root = open_root(path)
        return [
            (finding.severity, Path(str(finding.path)).stem, finding.text)
            for finding in check_root(root).findings
            if "of patient" in finding.text
        ]

    def test_a_patient_on_both_sides_of_a_split_is_a_warning(self, clinics):
        ((severity, name, text),) = self.found(clinics(south='patient: "{patient}_O[DSX]"'))
        assert (severity, name) == ("warning", "S0_OS")
        assert text.startswith("an eye of patient S0, as ") and "S0_OD.png of south/train is" in text
        assert text.endswith("it flatters in-domain scores and selection; keep all eyes of a patient on one side")

    def test_a_patient_in_two_domains_is_an_error_where_one_eye_is_tested(self, clinics):
        found = self.found(clinics(top='patient: "{patient}_O[DSX]"'))
        assert [each[:2] for each in found] == [("error", "P03_OX"), ("error", "P04_OX"), ("warning", "S0_OS")]
        assert "no domain is unseen where its patients train; keep all eyes of a patient on one side" in found[0][2]

    def test_numbers_of_two_clinics_are_not_the_same_patients(self, clinics):
        assert len(self.found(clinics(north='patient: "{patient}_O?"', south='patient: "{patient}_O?"'))) == 1

    def test_training_warns_of_patients_of_the_unseen_domain(self, clinics):
        path = clinics(top='patient: "{patient}_O[DSX]"')
        config = resolve_sources(settings("data.size=32", holdout="south"), ("north", "south"), where=path)
        progress = Lines()
        load_run_data(config, open_root(path), progress=progress)
        (line,) = [line for line in progress.lines if "other eyes" in line]
        assert line.startswith("warning: 2 patients of south/test, P03 first, with other eyes in a source domain")


class TestRecords:
    def scores(self, *patients):
        masks = np.zeros((2, 16, 16), bool)
        masks[:, 4:12, 4:12] = masks[1, 4, 4] = True
        cases = [
            Case("A", "test", f"n{number}", Path("n"), ((Path("n"),),), None, patient)
            for number, patient in enumerate(patients)
        ]
        return score_cases([(case, masks, Truth(masks)) for case in cases], Scoring(), lambda: None)[0]

    def test_a_record_has_the_patient_as_given_where_one_is_known(self, tmp_path):
        text = self.scores("00,7", None)
        assert text.splitlines()[0].startswith("protocol,domain,case,patient,structure,")
        meta = evaluation_of([], identity()).meta
        write_evaluation(tmp_path / "a.csv", meta, text)
        assert read_evaluation(tmp_path / "a.csv").cases["patient"].tolist()[::2] == [
            "00,7",
            pytest.approx(np.nan, nan_ok=True),
        ]

    def test_a_record_without_patients_is_that_of_earlier_versions(self):
        assert self.scores(None, None).splitlines()[0].startswith("protocol,domain,case,structure,")


def evaluation(patients, *, external=False, holdout="A"):
    rows = [
        {
            "domain": holdout,
            "case": f"n{number}",
            "structure": structure,
            "truth_pixels": 9,
            **dict.fromkeys(METRICS, 0.5),
        }
        | ({} if patients is None else {"patient": patient})
        for number, patient in enumerate(patients or [None] * 3)
        for structure in ("disc", "cup")
    ]
    run = identity(operator="nnunet" if external else "tvconv", holdout=holdout)
    return evaluation_of(rows, run, checkpoint=None if external else "best")


class TestTables:
    def test_masks_of_another_tool_have_the_patients_of_the_runs(self):
        values = case_values([evaluation(["1", "1", None]), evaluation(None, external=True)])
        assert set(zip(values["case"], values["patient"], strict=True)) == {("n0", "1"), ("n1", "1"), ("n2", "n2")}

    def test_the_note_counts_patients_or_says_that_none_is_known(self):
        assert patients_note([evaluation(None)]) == "patients: not known, so each case counts as a patient of its own"
        mixed = [evaluation(["1", "1", "2"]), evaluation(None, holdout="B"), evaluation(["1", "1", None], holdout="C")]
        assert patients_note(mixed).startswith(
            "patients: A 3 cases of 2, B not known, C 2 cases of 1 and 1 of which none is known; intervals and tests"
        )
