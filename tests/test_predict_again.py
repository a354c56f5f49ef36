from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from predictions import Drawn, Told, rows_of, stop_at, written_in

from fundus_seg.errors import BusyError, LeaseLostError, RunError
from fundus_seg.inference.folder import predict_folder
from fundus_seg.inference.pipeline import overlapped
from fundus_seg.inference.predict import Predictor
from fundus_seg.inference.shards import Shard
from fundus_seg.protocol import Scoring


class TestGoingOn:
    """One --out given again."""

    @pytest.fixture
    def folder(self, photographs):
        return photographs / "image"

    def test_what_is_done_is_not_done_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        before = table.read_bytes()
        model, told = drawn(), Told()
        assert predict_folder(checkpoint, [folder], tmp_path / "out", progress=told) == table
        assert model.calls == 0
        assert table.read_bytes() == before
        assert "4 of 4 photographs are done already" in told.text

    def test_an_interrupted_call_keeps_what_is_done_and_goes_on(self, drawn, checkpoint, folder, tmp_path):
        def interrupt():
            raise KeyboardInterrupt

        drawn(before=stop_at(3, interrupt))
        told = Told()
        with pytest.raises(KeyboardInterrupt):
            predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg", progress=told)
        assert told.lines[-1].startswith("stopped: 2 of 4 photographs are done; the same command goes on")
        assert [Path(row["photograph"]).stem for row in rows_of(tmp_path / "out/cases.csv")] == ["Atest0", "Atest1"]
        assert len(list((tmp_path / "out/masks").iterdir())) == 2  # nothing half-written
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg")
        assert model.calls == 2
        predict_folder(checkpoint, [folder], tmp_path / "whole", overlay="jpeg")
        assert (tmp_path / "out/cases.csv").read_bytes() == (tmp_path / "whole/cases.csv").read_bytes()
        assert len(list((tmp_path / "out/overlays").iterdir())) == 4

    def test_a_full_disk_says_where_it_stopped(self, drawn, checkpoint, folder, tmp_path):
        def fill():
            raise RunError("out/cases.csv: cannot be written (No space left on device)")

        drawn(before=stop_at(3, fill))
        told = Told()
        with pytest.raises(RunError, match="No space left"):
            predict_folder(checkpoint, [folder], tmp_path / "out", progress=told)
        assert told.lines[-1].startswith("stopped: 2 of 4 photographs are done; the same command goes on")

    def test_nothing_is_said_to_be_done_in_a_folder_that_was_deleted(self, drawn, checkpoint, folder, tmp_path):
        def delete():
            for again in count():  # the masks before this one are being written, and may make a folder anew
                if not (tmp_path / "out").exists():
                    break
                (tmp_path / "out").rename(tmp_path / f"deleted{again}")  # all of it at once

        drawn(before=stop_at(3, delete))
        told = Told()
        with pytest.raises(RunError, match="deleted while this process wrote there"):
            predict_folder(checkpoint, [folder], tmp_path / "out", progress=told)
        assert "stopped" not in told.text

    def test_a_cut_last_line_is_done_again(self, drawn, checkpoint, folder, tmp_path):
        (folder / "Atest3.png").rename(folder / 'q"uo,te\nd\r.png')
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        whole = table.read_bytes()
        start = whole.index(b'"')  # of the last row
        for end in range(start, len(whole) + 1):
            table.write_bytes(whole[:end])
            model = drawn()
            predict_folder(checkpoint, [folder], tmp_path / "out")
            assert model.calls == (end < len(whole))
            assert table.read_bytes() == whole

    @pytest.mark.parametrize("how", ["model", "precision", "format", "version", "protocol"])
    def test_other_predictions_are_not_mixed(self, drawn, checkpoint, folder, tmp_path, monkeypatch, how):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        before = table.read_bytes()
        named, options = how, {}
        if how == "model":
            checkpoint = Path(shutil.copy(checkpoint, tmp_path / "other.ckpt"))
            with checkpoint.open("ab") as file:
                file.write(b" ")
            named = "checkpoint"
        elif how == "precision":
            options = {"precision": "bf16"}
        elif how == "format":
            options, named = {"form": "nifti"}, "mask format png there, nifti now"
        elif how == "version":
            monkeypatch.setattr("importlib.metadata.version", lambda _: "99.0")
            named = "99.0 now"
        else:
            monkeypatch.setattr("fundus_seg.inference.made_by.PROTOCOL_VERSION", 99)
        with pytest.raises(RunError, match=rf"holds other predictions \(.*{named}.*choose another --out"):
            predict_folder(checkpoint, [folder], tmp_path / "out", **options)
        assert table.read_bytes() == before

    def test_a_folder_of_unknown_predictions_is_refused(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        (tmp_path / "out/predictions.json").unlink()
        with pytest.raises(RunError, match=r"without predictions\.json"):
            predict_folder(checkpoint, [folder], tmp_path / "out")
        for content in ("", "[]", "{}", '{"made_by": 1}', "[" * 100_000):
            (tmp_path / "out/predictions.json").write_text(content)
            with pytest.raises(RunError, match=r"predictions\.json"):
                predict_folder(checkpoint, [folder], tmp_path / "out")

    def test_a_table_of_other_columns_is_refused(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        whole = table.read_text()
        for damaged in ("photograph,height\n1,2\n", whole.replace(",90,90,", ",90,", 1), ""):
            table.write_text(damaged)
            with pytest.raises(RunError, match=r"cases\.csv: not rows of photograph, height"):
                predict_folder(checkpoint, [folder], tmp_path / "out")

    def test_changed_gone_and_new_photographs(self, drawn, checkpoint, folder, tmp_path):
        """The case c19: of two photographs one is damaged and one is gone, and a third is new."""
        for number in (2, 3):
            (folder / f"Atest{number}.png").rename(tmp_path / f"{number}.png")
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out", overlay="png")
        (folder / "Atest0.png").write_bytes((folder / "Atest0.png").read_bytes()[:500])
        (folder / "Atest1.png").unlink()
        (tmp_path / "2.png").rename(folder / "Atest2.png")
        told = Told()
        predict_folder(checkpoint, [folder], tmp_path / "out", overlay="png", progress=told)
        assert "left out: 1 photograph, damaged (" in told.text
        assert "0 of 2 photographs are done already" in told.text
        assert f"have changed: {folder / 'Atest0.png'}" in told.text
        assert "1 photograph of earlier calls is not given now" in told.text
        names = [Path(row["photograph"]).stem for row in rows_of(table) if row["status"] != "declined"]
        assert names == ["Atest1", "Atest2"]
        for kind in ("masks", "overlays"):
            assert sorted(path.stem for path in (tmp_path / "out" / kind).iterdir()) == names

    def test_a_changed_photograph_is_done_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        shutil.copy(folder / "Atest1.png", folder / "Atest0.png")
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert model.calls == 1
        inputs = {Path(row["photograph"]).stem: row["inputs"] for row in rows_of(table)}
        assert len(inputs) == 4
        assert inputs["Atest0"] == inputs["Atest1"]

    def test_another_photograph_of_the_same_name_is_refused_by_name(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        before = table.read_bytes()
        (tmp_path / "second").mkdir()
        Image.new("RGB", (90, 90)).save(tmp_path / "second/Atest0.png")
        with pytest.raises(
            RunError, match=r"other photographs with the same names.*second/Atest0\.png \(there: .*image/A"
        ):
            predict_folder(checkpoint, [tmp_path / "second"], tmp_path / "out")
        assert table.read_bytes() == before
        shutil.copy(folder / "Atest0.png", tmp_path / "second/Atest0.png")  # the same photograph elsewhere
        model = drawn()
        predict_folder(checkpoint, [tmp_path / "second"], tmp_path / "out")
        assert model.calls == 0

    def test_what_is_missing_is_made_again(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        (tmp_path / "out/masks/Atest2.png").unlink()
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert model.calls == 1
        model = drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg")
        assert model.calls == 4
        assert len(list((tmp_path / "out/overlays").glob("*.jpg"))) == 4
        assert len(rows_of(tmp_path / "out/cases.csv")) == 4

    def test_new_truth_is_scored(self, drawn, checkpoint, photographs, tmp_path):
        truth = [str(photographs / "mask")]
        drawn()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=truth)
        shutil.copy(photographs / "mask/Atest1.png", photographs / "mask/Atest0.png")
        model = drawn()
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", truth=truth)
        assert model.calls == 1
        with pytest.raises(RunError, match="made with --truth; do so again"):
            predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")

    @pytest.mark.parametrize("value", ["many", "inf", "-1", "nan"])
    def test_a_table_of_impossible_numbers_is_refused(self, drawn, checkpoint, folder, tmp_path, value):
        drawn()
        table = predict_folder(checkpoint, [folder], tmp_path / "out")
        header, first, *rest = table.read_text().splitlines()
        fields = dict(zip(header.split(","), first.split(","), strict=True)) | {"framing": value, "warning": "framing"}
        table.write_text("\n".join([header, ",".join(fields.values()), *rest, ""]))
        with pytest.raises(RunError, match=r"framing of .*Atest0\.png is damaged; choose another --out"):
            predict_folder(checkpoint, [folder], tmp_path / "out")

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    @pytest.mark.usefixtures("hears_ctrl_c")
    def test_signals_stop_between_whole_files(self, drawn, checkpoint, folder, tmp_path, command, number, code):
        drawn(before=stop_at(2, lambda: os.kill(os.getpid(), number)))
        before = signal.getsignal(signal.SIGTERM)
        told = command("predict", checkpoint, folder, "--out", "out", "--roi", "full", code=code).err
        assert "stopped: 1 of 4 photographs are done; the same command goes on from there" in told
        assert signal.getsignal(signal.SIGTERM) is before
        assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["Atest0.png"]
        drawn()
        command("predict", checkpoint, folder, "--out", "out", "--roi", "full")
        assert len(rows_of(tmp_path / "out/cases.csv")) == 4

    @pytest.mark.parametrize(
        ("options", "suffix"),
        [
            ((), None),
            (("--overlay",), ".jpg"),
            (("--overlay", "png"), ".png"),
            (("--overlay=png",), ".png"),
            (("--overlay", "jpeg"), ".jpg"),
        ],
    )
    def test_overlays_have_the_format_that_is_named(
        self, drawn, checkpoint, folder, tmp_path, command, options, suffix
    ):
        for number, arguments in enumerate([(checkpoint, folder, *options), (*options, checkpoint, folder)]):
            drawn()
            command("predict", *arguments, "--out", f"out{number}")
            found = {path.suffix for path in (tmp_path / f"out{number}").glob("overlays/*")}
            assert found == ({suffix} if suffix else set())

    def test_a_folder_named_like_a_format_is_a_folder(self, drawn, checkpoint, folder, tmp_path, command):
        folder.rename(tmp_path / "png")
        drawn()
        command("predict", checkpoint, "--overlay", "--out", "out", "--", "png")
        assert {path.suffix for path in tmp_path.glob("out/overlays/*")} == {".jpg"}

    def test_the_record_says_what_made_the_predictions(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "out")
        record = json.loads((tmp_path / "out/predictions.json").read_text())
        assert record["made_by"]["precision"] == "fp32"
        assert record["framing"] == {"low": 0.3, "high": 0.8}


class TestOverlap:
    """Photographs are read, predicted and written at the same time."""

    def test_every_step_sees_all_in_order_and_few_are_on_their_way(self):
        began, settled, most = [], [], []

        def read(item):
            began.append(item)
            return item

        def compute(batch):
            most.append(len(began) - len(settled))
            assert len(batch) <= 3
            return batch

        overlapped(range(50), read, compute, lambda item: -item, settled.append, batch=3, threads=4, window=lambda: 5)
        assert settled == [-item for item in range(50)]
        assert max(most) <= 2 * 5 + 3

    def test_what_was_computed_is_settled_before_an_interrupt_ends_it(self):
        settled = []

        def compute(batch):
            if batch == [3]:
                raise KeyboardInterrupt
            return batch

        with pytest.raises(KeyboardInterrupt):
            overlapped(range(9), lambda item: item, compute, str, settled.append, batch=1, threads=2, window=lambda: 9)
        assert settled == ["0", "1", "2"]

    def test_nothing_is_settled_after_a_fault(self):
        settled = []

        def finish(item):
            if item == 2:
                raise RunError("full")
            return item

        with pytest.raises(RunError, match="full"):
            overlapped(range(9), lambda item: item, list, finish, settled.append, batch=2, threads=2, window=lambda: 9)
        assert settled == [0, 1]

    def test_masks_do_not_depend_on_the_batch(self, network):
        predictor = Predictor(network, scoring=Scoring(threshold=0.5))
        images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
        alone = [predictor.logits_of_batch([image], image.shape)[0] for image in images]
        assert predictor.batch == 1
        predictor.batch = 4
        seen = []
        predictor.network.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
        together = predictor.logits_of_batch(list(images), (64, 64))
        single = predictor.logits_of_batch([images[0]], (64, 64))
        assert seen == [4, 4]
        assert torch.equal(single[0], together[0])
        torch.testing.assert_close(together, torch.stack(alone))

    def test_a_gpu_s_batch_is_what_its_memory_holds(self, network, monkeypatch):
        predictor = Predictor(network)
        predictor.device = torch.device("cuda")
        one = 64**2 * 85 * 2**20 / 256**2
        for free, batch in ((0, 1), (6 * one, 2), (8 * one, 4), (2**40, 32)):
            monkeypatch.setattr("torch.cuda.mem_get_info", lambda device, free=free: (free, 2**41))
            predictor.__dict__.pop("batch", None)
            assert predictor.batch == batch
        predictor.scoring = Scoring(inference="native")
        del predictor.batch
        assert predictor.batch == 1

    def test_little_memory_changes_nothing_but_the_time(self, checkpoint, photographs, tmp_path, monkeypatch):
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out")
        monkeypatch.setattr("fundus_seg.inference.job.memory_free", lambda: 0)
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "other", cores=8)
        assert written_in(tmp_path / "other") == written_in(tmp_path / "out")

    def test_rows_stand_in_the_order_of_the_photographs(self, drawn, checkpoint, photographs, tmp_path):
        drawn()
        last = photographs / "image/Atest3.png"
        predict_folder(checkpoint, [last], tmp_path / "out")
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "out", cores=4)
        predict_folder(checkpoint, [photographs / "image"], tmp_path / "whole")
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    def test_the_compiler_of_torch_and_ray_stay_away(self, checkpoint, photographs, tmp_path):
        program = (
            "import sys; from fundus_seg_cli.main import main\n"
            "try: main()\n"
            "finally: print(sorted({'torch._dynamo', 'ray', 'lightning'} & set(sys.modules)), file=sys.stderr)"
        )
        command = ["predict", checkpoint, photographs / "image/Atest0.png", "--out", tmp_path / "out"]
        told = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=True)
        assert told.stderr.splitlines()[-1] == "[]"


class TestShards:
    """Several machines that write into one folder."""

    @pytest.fixture
    def folder(self, photographs):
        for number in range(4, 12):
            shutil.copy(photographs / f"image/Atest{number % 4}.png", photographs / f"image/Atest{number}.png")
        return photographs / "image"

    def test_shards_are_disjoint_and_whole_and_do_not_move(self):
        names = [f"Atest{number}" for number in range(1000)]
        parts = [{name for name in names if Shard(number, 4).holds(name)} for number in range(1, 5)]
        assert sum(map(len, parts)) == 1000
        assert set().union(*parts) == set(names)
        assert min(map(len, parts)) > 200
        assert [name for name in names[:8] if Shard(1, 2).holds(name)] == ["Atest0", "Atest2", "Atest6"]

    @pytest.mark.parametrize("text", ["0/4", "5/4", "x", "", "1/0", "-1/4", "1/4/4", "1.0/4", " 1/4", "\u0661/4"])
    def test_what_is_no_shard_is_refused(self, checkpoint, folder, command, text):
        told = command("predict", checkpoint, folder, "--out", "out", f"--shard={text}", code=2).err
        assert "write I/N with I from 1 to N" in told
        assert told.count("\n") == 1

    def test_shards_together_write_what_one_command_writes(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        predict_folder(checkpoint, [folder], tmp_path / "whole", overlay="jpeg")
        model = drawn()
        for number in (2, 3, 1):
            table = predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg", shard=Shard(number, 3))
            assert table == tmp_path / "out/cases.csv"
        assert model.calls == 12
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")
        model = drawn()
        for shard in (Shard(1, 5), None):
            predict_folder(checkpoint, [folder], tmp_path / "out", overlay="jpeg", shard=shard)
        assert model.calls == 0

    def test_shards_that_were_killed_are_seen_by_any_later_command(self, drawn, checkpoint, folder, tmp_path):
        def interrupt():
            raise KeyboardInterrupt

        for number in (1, 2):
            drawn(before=stop_at(3, interrupt))
            with pytest.raises(KeyboardInterrupt):
                predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(number, 2))
        assert not (tmp_path / "out/cases.csv").exists()
        model, told = drawn(), Told()
        predict_folder(checkpoint, [folder], tmp_path / "out", progress=told)
        assert "4 of 12 photographs are done already" in told.text
        assert model.calls == 8
        predict_folder(checkpoint, [folder], tmp_path / "whole")
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    def test_a_shard_that_another_one_overtakes_leaves_the_joining_to_it(
        self, drawn, checkpoint, folder, tmp_path, monkeypatch
    ):
        def overtaken(job, rows):
            raise LeaseLostError("another process has taken over")

        drawn()
        monkeypatch.setattr("fundus_seg.inference.job.PredictionJob._join", overtaken)
        table = predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(1, 2))
        assert table == Shard(1, 2).folder(tmp_path / "out") / "cases.csv"
        monkeypatch.undo()
        drawn()
        assert len(rows_of(predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(2, 2)))) == 12

    def test_shards_at_the_same_time_share_no_file(self, drawn, checkpoint, folder, tmp_path):
        drawn()
        with ThreadPoolExecutor(3) as pool:
            calls = [
                pool.submit(predict_folder, checkpoint, [folder], tmp_path / "out", shard=Shard(number, 3))
                for number in (1, 2, 3)
            ]
            tables = {call.result() for call in calls}
        assert tables <= {tmp_path / "out/cases.csv", *(tmp_path / f"out/shards/{n}-of-3/cases.csv" for n in (1, 2, 3))}
        predict_folder(checkpoint, [folder], tmp_path / "out")
        predict_folder(checkpoint, [folder], tmp_path / "whole")
        assert written_in(tmp_path / "out") == written_in(tmp_path / "whole")

    @pytest.mark.parametrize(
        ("first", "second", "refused"),
        [
            (None, Shard(1, 2), "is writing here without --shard"),
            (Shard(1, 2), None, "is writing shard 1/2 here"),
            (Shard(1, 2), Shard(2, 3), "is writing shard 1/2 here"),
            (Shard(1, 2), Shard(1, 2), "is writing here"),
            (Shard(1, 2), Shard(2, 2), None),
        ],
    )
    def test_commands_that_may_do_the_same_photographs_refuse_each_other(
        self, drawn, checkpoint, folder, tmp_path, monkeypatch, first, second, refused
    ):
        def other():
            monkeypatch.setattr("fundus_seg.inference.predict.load_model", lambda path, **_: Drawn())
            if refused:
                with pytest.raises(BusyError, match=refused):
                    predict_folder(checkpoint, [folder], tmp_path / "out", shard=second)
            else:
                predict_folder(checkpoint, [folder], tmp_path / "out", shard=second)

        drawn(before=stop_at(1, other))
        predict_folder(checkpoint, [folder], tmp_path / "out", shard=first)
        predict_folder(checkpoint, [folder], tmp_path / "out")
        assert len(rows_of(tmp_path / "out/cases.csv")) == 12

    def test_another_model_s_shard_is_refused(self, drawn, checkpoint, folder, tmp_path):
        def interrupt():
            raise KeyboardInterrupt

        drawn(before=stop_at(2, interrupt))
        with pytest.raises(KeyboardInterrupt):
            predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(1, 2))
        drawn()
        for shard in (None, Shard(2, 2)):
            with pytest.raises(RunError, match="holds other predictions"):
                predict_folder(checkpoint, [folder], tmp_path / "out", precision="bf16", shard=shard)

    def test_a_shard_tells_of_its_own_photographs_alone(self, drawn, checkpoint, folder, tmp_path):
        (folder / "Atest1.png").write_bytes(b"")
        drawn()
        (own,) = [Shard(number, 2) for number in (1, 2) if Shard(number, 2).holds("Atest1")]
        told = Told()
        predict_folder(checkpoint, [folder], tmp_path / "out", shard=Shard(3 - own.number, 2), progress=told)
        count = sum(not own.holds(f"Atest{number}") for number in range(12))
        assert f"{count} of {count} photographs are done" in told.lines[-1]
        predict_folder(checkpoint, [folder], tmp_path / "out", shard=own, progress=told)
        assert "left out: 1 photograph, not an image" in told.text

    def test_ray_does_all_shards(self, checkpoint, folder, command):
        told = command("predict", checkpoint, folder, "--out", "out", "--shard=1/2", "--executor=ray", code=2).err
        assert "leave --shard out" in told
