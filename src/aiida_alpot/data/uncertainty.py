"""UncertaintyData: what turns the predictions of one committee into error bars."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.orm.pydantic import OrmMetadataField

from aiida_alpot.kernel.jsonio import plain
from aiida_alpot.kernel.uncertainty import UncertaintyModel


class UncertaintyData(orm.Data):
    """Calibration, active sets and thresholds, bound to the models they were made with by their hashes."""

    FILENAME: ClassVar[str] = "uncertainty.h5"

    class AttributesModel(orm.Data.AttributesModel):
        """What can be queried without opening the file."""

        model_hashes: list[str] = OrmMetadataField(description="sha256 of the models, in order", read_only=True)
        thresholds: dict[str, float | None] = OrmMetadataField(
            description="Disagreement at the tolerance", read_only=True
        )
        tolerances: dict[str, float] = OrmMetadataField(description="Largest error wanted", read_only=True)

    @classmethod
    def from_hdf5(cls, path: str | Path) -> UncertaintyData:
        """Return an unstored node with a file written by :class:`~aiida_alpot.kernel.uncertainty.UncertaintyModel`.

        :raises ValueError: if it is not such a file.
        """
        model = UncertaintyModel.load(Path(path))
        node = cls()
        node.base.repository.put_object_from_file(str(path), cls.FILENAME)
        node.base.attributes.set_many(
            plain(
                {
                    "model_hashes": list(model.model_hashes),
                    "thresholds": model.thresholds,
                    "tolerances": dict(model.tolerances),
                }
            )
        )
        return node

    @property
    def model_hashes(self) -> list[str]:
        """Hashes of the model files it belongs to."""
        return list(self.base.attributes.get("model_hashes"))

    @property
    def thresholds(self) -> dict[str, float | None]:
        """Disagreement above which the error is expected above tolerance, by property."""
        return dict(self.base.attributes.get("thresholds"))

    @property
    def tolerances(self) -> dict[str, float]:
        """Largest error wanted, by property."""
        return dict(self.base.attributes.get("tolerances"))

    def model(self) -> UncertaintyModel:
        """Return the content, loaded into memory."""
        with self.base.repository.as_path() as folder:
            return UncertaintyModel.load(folder / self.FILENAME)

    def _validate(self) -> bool:
        super()._validate()
        if self.FILENAME not in self.base.repository.list_object_names():
            raise ValidationError(f"an UncertaintyData needs its file {self.FILENAME}; make it with from_hdf5")
        return True


def validate_committee(uncertainty: UncertaintyData, potentials: Any) -> str | None:
    """Return what is wrong if *uncertainty* was made with other models than *potentials*, or None."""
    hashes = [potentials[name].sha256 for name in sorted(potentials)]
    if uncertainty.model_hashes != hashes:
        return (
            "uncertainty: it was calibrated with other potentials than those given; run the calibrate stage "
            "with this committee"
        )
    return None
