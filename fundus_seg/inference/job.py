"""The work of one `predict_folder`, or of its shards: what is done, what is left, and how each photograph is done."""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fundus_seg.builtins import MaskFormat, PictureFormat, Precision, Views
from fundus_seg.container import memory_free
from fundus_seg.cores import core_count
from fundus_seg.data import dicom, listing
from fundus_seg.data.box import Box
from fundus_seg.data.coding import Coding, Thresholds
from fundus_seg.data.identifiers import Naming, naming
from fundus_seg.data.io import write_mask, write_probability
from fundus_seg.data.mask_files import MaskFiles
from fundus_seg.data.names import by_name, name_of
from fundus_seg.data.witness import Witness
from fundus_seg.errors import BusyError, DataError, Problems, RunError, about
from fundus_seg.inference.case_rows import columns, row_of, tell_warnings, texts_of
from fundus_seg.inference.members import Member, find_members
from fundus_seg.inference.output import Output, Table
from fundus_seg.inference.pipeline import overlapped
from fundus_seg.inference.plan import inputs_of, make_plan
from fundus_seg.inference.roi import FULL, NOWHERE, Region, Roi
from fundus_seg.inference.shards import Shard, done_rows, refuse_others, remove_shards
from fundus_seg.inference.truths import find_truths, read_pair
from fundus_seg.progress import SILENT, Advance, Progress
from fundus_seg.protocol import PROTOCOL_VERSION, STRUCTURES
from fundus_seg.runs.atomic import atomic_path
from fundus_seg.runs.folder import RunFolder
from fundus_seg.runs.lease import leased
from fundus_seg.runs.model_names import STARTER_FILE
from fundus_seg.viz.overlay import draw_overlay, save_picture

if TYPE_CHECKING:
    from fundus_seg.inference.localise import Localiser
    from fundus_seg.inference.predict import Segmenter


_SHARE_OF_MEMORY, _BYTES_PER_VALUE, _BYTES_PER_SEEN = 0.25, 12, 4
"""Of the free memory, what photographs on their way may take; bytes of one of them for each value of its pixels; and of
several networks, for each value that one of them sees: the value, and the logits."""


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
        truths: the true masks.
        predictor: what predicts.
        phantom: whether a network of it was trained on the phantom, and its photographs' rows are to warn of that.
        roi: which part of each photograph is predicted.
        localiser: finds the disc, if that is asked for and the model says how its photographs were framed.
        naming: how the identifiers in DICOM files are named; None: no photograph is DICOM.
        unusable: gets what is wrong with photographs.
    """

    output: Output
    whole: Table
    table: Table
    shard: Shard | None
    order: Sequence[str]
    given: Sequence[Path]
    photographs: Mapping[str, Path]
    truths: MaskFiles | None
    predictor: Segmenter
    phantom: bool
    roi: Roi
    localiser: Localiser | None
    naming: Naming | None
    unusable: Problems

    @classmethod
    def of(
        cls,
        model: Path | Sequence[Path],
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
        keep_ids: bool = False,
        shard: Shard | None = None,
        progress: Progress = SILENT,
    ) -> PredictionJob:
        """Check the arguments of `predict_folder`, then load the model; errors are those of `predict_folder`."""
        members = find_members([model] if isinstance(model, Path) else model, progress=progress)
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
            columns(scored=truths is not None, dicom=identified is not None),
            _made_by(members, form, precision, views, roi, identified),
        )
        if done_rows(whole) is None:  # refuses what does not fit before anything is loaded
            output.refuse_unrecorded()
        listing.tell(found.skipped, progress)
        starter = any(member.checkpoint == STARTER_FILE for member in members)
        if starter:
            progress.line(
                "starter: it learnt from drawn eyes alone; docs/starter.md says what was measured on real ones. "
                "Research software, not a medical device"
            )
        if probabilities and "temperatures" not in whole.made_by:
            progress.line("probabilities are not calibrated; `fundus-seg calibrate` fits temperatures for a run")

        from fundus_seg.inference.ensemble import load_members  # imports torch, only once the arguments are right
        from fundus_seg.inference.localise import localiser

        predictor = load_members(members, views=views, precision=precision, progress=progress)
        if predictor.scoring.adapt_batch_norms is not None:
            progress.line("scoring.adapt_batch_norms is for scores alone; these masks are made without it")
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
            truths,
            predictor,
            not starter and _of_phantom(predictor, members),
            roi,
            localiser() if roi.kind == "auto" and predictor.framing else None,
            identified,
            unusable,
        )

    @property
    def about(self) -> Mapping[str, Any]:
        """What the record says beside what made the predictions."""
        framing = self.predictor.framing
        return {"framing": framing and asdict(framing)}

    def run(self, cores: int, progress: Progress) -> int:
        """Do what is missing, under the lease of the table's folder; how many of the given photographs are done."""
        rows = done_rows(self.whole) or {}
        if self.shard:
            rows = {name: row for name, row in rows.items() if self.shard.holds(name)}
        plan = make_plan(self.output, rows, self.photographs, self.truths)
        begun = self._in_order(plan.rows)
        self.table.begin((plan.rows[name] for name in begun), self.about)
        if not self.shard:
            remove_shards(self.output.path)
        plan.tell(self.output, {name_of(path) for path in self.given}, progress)
        done = {name: _told(row) for name, row in plan.rows.items() if name in self.photographs}
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
        tell_warnings(done.values(), self.predictor.framing, progress)
        witness.suspicion().tell(progress, but=["stray"])  # which the rows tell, those of earlier calls too
        return len(done)

    def join(self) -> bool:
        """Join the tables of all shards into one, unless another command is at work; whether that was done."""
        with contextlib.suppress(BusyError):
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
            plan = make_plan(self.output, done_rows(self.whole) or {}, self.photographs, self.truths)
            self._join(plan.rows)
        done = [row for name, row in plan.rows.items() if name in self.photographs]
        progress.line(f"{self.output.path}: {len(done)} of {len(self.given)} photographs are done")
        tell_warnings(done, self.predictor.framing, progress)
        return len(done), plan.again

    def refuse_unusable(self, done: int) -> None:
        """Raise a DataError that lists the photographs that cannot be used, if there are any; `done` are the others."""
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
        predictor = self.predictor
        largest = 0  # bytes of one photograph on its way
        room = memory_free() * _SHARE_OF_MEMORY * cores / core_count()
        threads = 1 + max(1, cores - predictor.threads)  # one of them may wait for the disk

        def read(item: tuple[str, Path]) -> _Photograph:
            nonlocal largest
            name, path = item
            try:
                image, true = read_pair(name, path, self.truths, witness)
                region = self.roi.region(name, image, predictor.framing, self.localiser)
                seen = region.box and predictor.prepare(region.cut(image))
                largest = max(largest, image.size * _BYTES_PER_VALUE + _held(seen))
                header = dicom.read_header(path) if self.naming and listing.is_dicom(path) else None
                inputs = inputs_of(name, path, self.truths)
                return _Photograph(name, path, image, true, region, seen, inputs, header)
            except DataError as error:
                return _Photograph(name, path, problem=error)

        def compute(group: Sequence[_Photograph]) -> Sequence[_Photograph]:
            sound = [each for each in group if each.box]
            if sound:
                try:
                    with about(sound[0].path):
                        logits = predictor.logits_of_batch([each.seen for each in sound], sound[0].frame)
                except DataError as error:
                    for each in sound:
                        each.problem = error
                else:
                    for each, own in zip(sound, logits, strict=True):
                        each.logits = own
            return group

        def finish(each: _Photograph) -> _Photograph:
            if each.problem is None:
                masks = self._masks(each)
                true = None if each.true is None else each.region.whole_truth(each.true)
                framing, phantom, inputs = predictor.framing, self.phantom, each.inputs
                each.row = row_of(
                    each.path,
                    each.image,
                    masks and masks[0],
                    true,
                    region=each.region,
                    framing=framing,
                    phantom=phantom,
                    inputs=inputs,
                    header=each.header,
                    name=self.naming.name if self.naming else str,
                )
                if masks:
                    _write(self.output, each, *masks)
            each.image = each.true = each.seen = each.logits = None  # what waits for its turn holds no pixels
            return each

        def settle(each: _Photograph) -> None:
            with self.unusable.gather():
                if each.problem is not None:
                    raise each.problem
                self.table.add(each.row)
                done[each.name] = _told(each.row)
            advance()

        overlapped(
            to_do.items(),
            read,
            compute,
            finish,
            settle,
            batch=predictor.batch,
            threads=threads,
            window=lambda: int(min(predictor.batch + 2 * threads, room / largest if largest else 1)),
        )

    def _masks(self, photograph: _Photograph) -> tuple[NDArray[np.bool_], NDArray[np.float32] | None] | None:
        """The masks (2, H, W) of a whole photograph, and its probabilities if they are kept; None without a region."""
        box = photograph.box
        if box is None:
            return None
        frame, whole = photograph.frame, photograph.image.shape
        kept = np.empty((len(STRUCTURES), *frame), np.float32) if self.output.probabilities else None
        masks = self.predictor.clean(self.predictor.framed(photograph.logits, frame, kept))
        photograph.region = photograph.region.confirmed(masks[0], self.predictor.framing)
        region = photograph.region
        if region.box is None:
            return None
        return region.whole(masks, whole), None if kept is None else region.whole(kept, whole)

    def _in_order(self, names: Iterable[str]) -> list[str]:
        """Names in the order of the photographs, after those that were not given."""
        place = {name: number for number, name in enumerate(self.order)}
        return sorted(names, key=lambda name: place.get(name, -1))

    def _sort(self, table: Table) -> None:
        """Write the rows of a table in the order of the photographs."""
        rows = {name_of(Path(row["photograph"])): row for row in table.rows() or ()}
        table.begin((rows[name] for name in self._in_order(rows)), self.about)


@dataclass
class _Photograph:
    """A photograph on its way, and what is known of it so far.

    Attributes:
        name: its name.
        path: its file.
        image: its pixels (H, W, 3).
        true: its true masks (2, H, W).
        region: the part of it that is predicted.
        seen: what the network sees (h, w, 3).
        inputs: what stands for its files.
        header: what its DICOM file says of it.
        logits: of the network (2, h, w).
        row: its row.
        problem: why it cannot be used; it then goes on to its place in the order, and nothing is done.
    """

    name: str
    path: Path
    image: Any = None
    true: Any = None
    region: Region = NOWHERE
    seen: Any = None
    inputs: str | None = None
    header: dicom.Header | None = None
    logits: Any = None
    row: Mapping[str, Any] = field(default_factory=dict)
    problem: DataError | None = None

    @property
    def box(self) -> Box | None:
        """What is predicted of it; None if nothing is."""
        return self.region.box if self.problem is None else None

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width of that."""
        return (self.region.box.height, self.region.box.width) if self.region.box else (0, 0)


def _told(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """What `tell_warnings` needs of a row: many rows then take little memory."""
    return {"warning": row["warning"], "framing": row["framing"]}


def _held(seen: Any) -> int:
    """The bytes that several networks and views need of one photograph, beyond those of a single one."""
    several = [each for views in seen for each in views] if isinstance(seen, list) else []
    return _BYTES_PER_SEEN * sum(each.nbytes for each in several)


def _write(
    output: Output, photograph: _Photograph, masks: NDArray[np.bool_], probabilities: NDArray[np.float32] | None
) -> None:
    """Write the files of one photograph."""
    name, like = photograph.name, photograph.path
    with atomic_path(output.mask(name)) as temporary:
        write_mask(temporary, masks, output.form, like=like)
    for structure, probability in zip(STRUCTURES, () if probabilities is None else probabilities, strict=False):
        with atomic_path(output.probability(name, structure)) as temporary:
            write_probability(temporary, probability, output.form, like=like)
    if output.overlay:
        written = photograph.region.shown(np.stack([masks[0], masks[0] & masks[1]]))
        texts = texts_of(photograph.row)
        drawing = draw_overlay(photograph.image, written, photograph.true, name=name, texts=texts)
        save_picture(drawing, output.picture(name, output.overlay), output.overlay)


def _made_by(
    members: Sequence[Member],
    form: MaskFormat,
    precision: Precision,
    views: Views,
    roi: Roi,
    identified: Naming | None,
) -> dict[str, Any]:
    """What makes predictions, as JSON reads it: equal values, equal predictions. A checkpoint holds its protocol."""
    digests = [member.digest[:16] for member in members]
    temperatures = [list(member.calibration.temperatures) for member in members if member.calibration]
    return {
        "checkpoint": digests[0] if len(digests) == 1 else digests,
        "fundus-seg": importlib.metadata.version("fundus-seg"),
        "protocol version": PROTOCOL_VERSION,
        "precision": precision,
        "mask format": form,
        "roi": roi.text,
        **({"views": views} if views != "none" else {}),
        **({"temperatures": temperatures} if len(temperatures) == len(members) else {}),
        **({"identifiers": identified.text} if identified else {}),
    }


def _of_phantom(predictor: Segmenter, members: Sequence[Member]) -> bool:
    """Whether a network was trained on the phantom, which a run of an older version tells but not its checkpoint."""

    def recorded(member: Member) -> bool:
        try:
            return bool(RunFolder(member.path).read_config()["provenance"].get("phantom"))
        except RunError:  # a checkpoint alone
            return False

    return any(map(recorded, members)) if predictor.phantom is None else predictor.phantom


def _keep_apart(output: Output, photographs: Iterable[Path], truths: MaskFiles | None) -> None:
    """Refuse an output folder in which files would be written among the inputs."""
    files = [*photographs, *(path for paths in truths.files.values() for path in paths)] if truths else photographs
    if {folder.resolve() for folder in output.folders} & {path.parent.resolve() for path in files}:
        raise DataError("a folder that it writes to holds what was given; choose another --out", output.path)
