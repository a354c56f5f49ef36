"""The work of one `predict_folder`, or of its shards: what is done, and what is left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fundus_seg.builtins import CasesFormat, MaskFormat, PictureFormat, Precision, Views
from fundus_seg.container import memory_free
from fundus_seg.cores import core_count
from fundus_seg.data import listing
from fundus_seg.data.coding import Coding, Thresholds
from fundus_seg.data.identifiers import naming
from fundus_seg.data.mask_files import MaskFiles
from fundus_seg.data.names import by_name, name_of
from fundus_seg.data.witness import Witness
from fundus_seg.errors import BusyError, DataError, LeaseLostError, Problem, Problems, RunError
from fundus_seg.inference.case_columns import columns
from fundus_seg.inference.case_warnings import UNREADABLE, tell_warnings, told_of
from fundus_seg.inference.loaded import load_networks, trust_for
from fundus_seg.inference.made_by import made_by, temperatures_of
from fundus_seg.inference.members import find_members
from fundus_seg.inference.output import Output, Table
from fundus_seg.inference.pipeline import overlapped
from fundus_seg.inference.plan import make_plan
from fundus_seg.inference.roi import FULL, Roi
from fundus_seg.inference.shards import Shard, done_rows, refuse_others, remove_shards
from fundus_seg.inference.steps import Photograph, Steps
from fundus_seg.inference.table_forms import check_form, in_form
from fundus_seg.inference.truths import find_truths
from fundus_seg.progress import SILENT, Advance, Progress
from fundus_seg.runs.lease import leased

_SHARE_OF_MEMORY = 0.25
"""Of the free memory, what photographs on their way may take."""


@dataclass(frozen=True)
class PredictionJob:
    """What one command does.

    Attributes:
        output: where masks and overlays go.
        whole: the table of all photographs.
        table: the table that this command writes: the same one, or that of its shard.
        shard: the part to do; None: all photographs.
        order: the names of all photographs, of other shards too, in the order in which they were given.
        given: paths of the photographs to do, those that cannot be used among them.
        photographs: the others, by name.
        steps: what is done to each photograph.
        cases: form in which the whole table is also written.
        unusable: gets what is wrong with photographs that have no row.
    """

    output: Output
    whole: Table
    table: Table
    shard: Shard | None
    order: Sequence[str]
    given: Sequence[Path]
    photographs: Mapping[str, Path]
    steps: Steps
    cases: CasesFormat
    unusable: Problems

    @classmethod
    def of(
        cls,
        model: str | Path | Sequence[str | Path],
        images: Sequence[Path],
        out: Path,
        *,
        recursive: bool = False,
        form: MaskFormat = "png",
        overlay: PictureFormat | None = None,
        probabilities: bool = False,
        views: Views = "none",
        truth: Sequence[str] = (),
        truth_coding: Coding | Thresholds | None = None,
        precision: Precision = "fp32",
        roi: Roi = FULL,
        anatomical: bool = False,
        keep_ids: bool = False,
        decline_below: float | None = None,
        cases: CasesFormat = "csv",
        shard: Shard | None = None,
        progress: Progress = SILENT,
    ) -> PredictionJob:
        """Check the arguments of `predict_folder`, then load the model; errors are those of `predict_folder`."""
        check_form(cases)
        members = find_members([model] if isinstance(model, str | Path) else model, progress=progress)
        other = f"--views {views}" if views != "none" else "--anatomical" if anatomical else ""
        trust = trust_for(members, other, decline_below, progress)
        found = listing.photographs(images, recursive=recursive, written=out)
        unusable = Problems()
        photographs = by_name(found.files, "photograph", unusable)
        if not photographs:
            unusable.refuse("photographs cannot be used")
        truths = find_truths(truth, truth_coding, photographs, progress) if truth else None
        output = Output(out, form, overlay, probabilities)
        _keep_apart(output, photographs.values(), truths)
        identified = naming(keep=keep_ids) if any(map(listing.is_dicom, photographs.values())) else None
        whole = Table(
            out,
            columns(scored=truths is not None, dicom=identified is not None, trusted=trust is not None),
            made_by(members, form, precision, views, roi, identified, trust, decline_below, anatomical=anatomical),
            temperatures_of(members) if probabilities else None,
        )
        if done_rows(whole) is None:  # refuses what does not fit before anything is loaded
            output.refuse_unrecorded()
        listing.tell(found.skipped, progress)
        if probabilities and not whole.temperatures:
            progress.line("probabilities are not calibrated; `fundus-seg calibrate` fits temperatures for a run")
        loaded = load_networks(
            members,
            trust,
            views=views,
            precision=precision,
            anatomical=anatomical,
            decline_below=decline_below,
            progress=progress,
        )
        given, order = found.files, tuple(photographs)
        if shard:
            given = tuple(path for path in given if shard.holds(name_of(path)))
            photographs = {name: path for name, path in photographs.items() if shard.holds(name)}
            unusable.found = [each for each in unusable.found if each.path in given]
        return cls(
            output,
            whole,
            replace(whole, folder=shard.folder(out)) if shard else whole,
            shard,
            order,
            given,
            photographs,
            loaded.steps(output, roi, truths=truths, naming=identified),
            cases,
            unusable,
        )

    @property
    def about(self) -> Mapping[str, Any]:
        """What the record says beside what made the predictions."""
        framing = self.steps.predictor.framing
        return {"framing": framing and asdict(framing)}

    def run(self, cores: int, progress: Progress) -> int:
        """Do what is missing, under the lease of the table's folder; how many of the given photographs are done."""
        rows = done_rows(self.whole) or {}
        if self.shard:
            rows = {name: row for name, row in rows.items() if self.shard.holds(name)}
        plan = make_plan(self.output, rows, self.photographs, self.steps.truths)
        begun = self._in_order(plan.rows)
        self.table.begin((plan.rows[name] for name in begun), self.about)
        if not self.shard:
            remove_shards(self.output.path)
        plan.tell(self.output, {name_of(path) for path in self.given}, progress)
        done = {name: told_of(row) for name, row in plan.rows.items() if name in self.photographs}
        witness = Witness("--truth-coding")
        try:
            with progress.task("predicting", total=len(plan.to_do)) as advance:
                self._predict(plan.to_do, done, witness, cores, advance)
        except (KeyboardInterrupt, SystemExit, RunError):
            if self.table.path.exists():  # else the folder was deleted
                count = f"{len(done)} of {len(self.given)} photographs are done"
                progress.line(f"stopped: {count}; the same command goes on from there")
            raise
        written = [*begun, *(name for name in plan.to_do if name in done)]
        if written != self._in_order(written):
            self._sort(self.table)
        witness.suspicion().tell(progress, but=["stray"])  # which the rows tell, those of earlier calls too
        return self._tell(list(done.values()), progress)

    def join(self) -> bool:
        """Join the tables of all shards into one, unless another command is at work; whether that was done."""
        with contextlib.suppress(BusyError, LeaseLostError):  # of two that end at once, the later takes over and joins
            with self._alone():
                self._join(done_rows(self.whole) or {})
            return True
        return False

    def collect(self, progress: Progress) -> tuple[int, Sequence[Path]]:
        """Join the tables of shards that other machines have done, and tell the warnings.

        Returns:
            How many photographs are done, and those whose rows come from other files than are seen here, or whose masks
            are gone, which are left undone.
        """
        with self._alone():
            plan = make_plan(self.output, done_rows(self.whole) or {}, self.photographs, self.steps.truths)
            self._join(plan.rows)
        done = [row for name, row in plan.rows.items() if name in self.photographs]
        progress.line(f"{self.output.path}: {len(done)} of {len(self.given)} photographs are done")
        return self._tell(done, progress), plan.again

    def _tell(self, rows: Sequence[Mapping[str, Any]], progress: Progress) -> int:
        """Tell the warnings of rows; how many of their photographs are done.

        Where no photograph at all can be read, none is, and the command ends with what is wrong with them.
        """
        if self.shard or not rows or any(row["warning"] != UNREADABLE for row in rows):
            tell_warnings(rows, self.steps.predictor.framing, progress)
            return len(rows)
        self.unusable.found += (Problem(row["reason"], row["photograph"]) for row in rows)
        return 0

    def table_in_form(self) -> Path:
        """Write the whole table in the form that is asked for; its path."""
        return in_form(self.whole, self.cases)

    def refuse_unusable(self, done: int) -> None:
        """Raise a DataError that lists the photographs that have no row, if there are any; `done` are the others."""
        self.unusable.refuse(f"photographs cannot be used (the other {done} are done)")

    def _alone(self) -> contextlib.AbstractContextManager[None]:
        """The lease of the whole folder, while no shard is at work."""
        return leased(self.output.path, check=lambda: refuse_others(self.output.path, None))

    def _join(self, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self.whole.begin((rows[name] for name in self._in_order(rows)), self.about)
        remove_shards(self.output.path)

    def _predict(
        self,
        to_do: Mapping[str, Path],
        done: dict[str, Mapping[str, Any]],
        witness: Witness,
        cores: int,
        advance: Advance,
    ) -> None:
        """Predict photographs; `done` gets a row for each, in their order."""
        steps, predictor = self.steps, self.steps.predictor
        largest = 0  # bytes of one photograph on its way
        room = memory_free() * _SHARE_OF_MEMORY * cores / core_count()
        threads = 1 + max(1, cores - predictor.threads)  # one of them may wait for the disk

        def read(item: tuple[str, Path]) -> Photograph:
            nonlocal largest
            photograph = steps.read(*item, witness)
            if photograph.problem is None:
                largest = max(largest, photograph.size)
            return photograph

        def settle(each: Photograph) -> None:
            with self.unusable.gather():
                if each.problem is not None and not each.unreadable:
                    raise each.problem
                self.table.add(each.row)
                done[each.name] = told_of(each.row)
            advance()

        overlapped(
            to_do.items(),
            read,
            steps.compute,
            steps.finish,
            settle,
            batch=predictor.batch,
            threads=threads,
            window=lambda: int(min(predictor.batch + 2 * threads, room / largest if largest else 1)),
        )

    def _in_order(self, names: Iterable[str]) -> list[str]:
        """Names in the order of the photographs, after those that were not given."""
        place = {name: number for number, name in enumerate(self.order)}
        return sorted(names, key=lambda name: place.get(name, -1))

    def _sort(self, table: Table) -> None:
        """Write the rows of a table in the order of the photographs."""
        rows = {name_of(Path(row["photograph"])): row for row in table.rows() or ()}
        table.begin((rows[name] for name in self._in_order(rows)), self.about)


def _keep_apart(output: Output, photographs: Iterable[Path], truths: MaskFiles | None) -> None:
    """Refuse an output folder in which files would be written among the inputs."""
    files = [*photographs, *(path for paths in truths.files.values() for path in paths)] if truths else photographs
    if {folder.resolve() for folder in output.folders} & {path.parent.resolve() for path in files}:
        raise DataError("a folder that it writes to holds what was given; choose another --out", output.path)
