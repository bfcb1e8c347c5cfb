"""The ids that a generation loop hands over at every step, and what they say since the last one.

    >>> before = HostIds(np.array([[7, 8], [7, 9]])).kept()
    >>> HostIds(np.array([[7, 8, 1], [7, 9, 2]])).newest(before)
    [1, 2]

Both classes answer the same questions: on the host by comparing bytes (between two steps of a model everything has left
the caches, so that every further library call takes longer than the work it does), on a device by one look at it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

_FEW = 1 << 16  # ids that are sooner read by the host than compared on a device


class HostIds:
    """Ids as an array of integers [batch, length] of the host's."""

    def __init__(self, ids: npt.NDArray[Any]) -> None:
        self._ids = ids
        self.shape = ids.shape
        self._bytes = b""

    def kept(self) -> HostIds:
        """This, independent of the caller's memory, to be compared with later ones."""
        self._bytes = self._ids.tobytes()
        return self

    @property
    def _kept(self) -> npt.NDArray[Any]:
        return np.frombuffer(self._bytes, self._ids.dtype).reshape(self.shape)

    def like(self, other: Ids) -> Ids:
        """This, if it is kept, where the other ids are."""
        return self if isinstance(other, HostIds) else DeviceIds(torch.tensor(self._kept, device=other.device))

    def newest(self, before: HostIds) -> list[int] | None:
        """The last column, if the others are the kept ones."""
        same = self._ids[:, :-1].tobytes() == before._bytes
        return self._ids[:, -1].tolist() if same else None

    def agrees(self, before: HostIds, length: int) -> bool:
        """Whether the first columns are those of the kept ones."""
        return bool((self._ids[:, :length] == before._kept[:, :length]).all())

    def after(self, length: int) -> list[list[int]]:
        """All columns but the first ones, by row."""
        found: list[list[int]] = self._ids[:, length:].tolist()
        return found


class DeviceIds:
    """Ids as a tensor [batch, length] of a device's, too many to be copied at every step."""

    def __init__(self, ids: torch.Tensor) -> None:
        self._ids = ids
        self.shape = ids.shape
        self.device = ids.device

    def kept(self) -> DeviceIds:
        """See `HostIds`; so with the others."""
        self._ids = self._ids.clone()
        return self

    def like(self, other: Ids) -> Ids:
        return HostIds(self._ids.cpu().numpy()).kept() if isinstance(other, HostIds) else self

    def newest(self, before: DeviceIds) -> list[int] | None:
        same = (self._ids[:, :-1] == before._ids).all().view(1).to(self._ids.dtype)
        told: list[int] = torch.cat([same, self._ids[:, -1]]).tolist()
        return told[1:] if told[0] else None

    def agrees(self, before: DeviceIds, length: int) -> bool:
        return bool(torch.equal(self._ids[:, :length], before._ids[:, :length]))

    def after(self, length: int) -> list[list[int]]:
        found: list[list[int]] = self._ids[:, length:].tolist()
        return found


Ids = HostIds | DeviceIds


def ids_of(tensor: torch.Tensor) -> Ids:
    """The ids of a tensor [batch, length], where they are sooner read."""
    if tensor.is_cpu:
        return HostIds(tensor.numpy())
    return DeviceIds(tensor) if tensor.numel() > _FEW else HostIds(tensor.cpu().numpy())
