"""What passes between the host and the pretended device is counted, and refused while a stream captures."""

from __future__ import annotations

__all__ = ["Transfers", "transfers"]


class Transfers:
    """How often values were fetched from the device, each time waiting for it; and sent there.

    While a stream is `capturing`, CuPy refuses both, and what else waits for the device, or is cuBLAS'.
    """

    fetched = sent = 0
    capturing = False

    def fetch(self) -> None:
        self.refuse("D2H transfers")
        self.fetched += 1

    def send(self) -> None:
        self.refuse("H2D transfers")
        self.sent += 1

    def refuse(self, what: str) -> None:
        if self.capturing:
            raise RuntimeError(f"the current stream is capturing, so {what} are disallowed")

    def refuse_cublas(self) -> None:
        if self.capturing:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently unsupported")


transfers = Transfers()
