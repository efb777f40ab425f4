"""Pictures in and out of video files and of PNG, by PyAV; one picture is in memory beside those asked for."""

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from lfm_policy.errors import DataError

CODEC, QUALITY, KEY_EVERY = "libx264", "18", "2"
"""Of what is written: H.264, which every decoder knows; nearly without loss; every second picture stands alone."""
PICTURE = "rgb24"
Size = tuple[int, int]
"""Height and width [pixels]."""


class Film:
    """Reads the pictures of one video file, forwards as far as possible.

    Args:
        path: the file.
        size: of the pictures to return; others are scaled to it.

    Raises:
        DataError: it is no video, or of a codec that this PyAV does not know.
    """

    def __init__(self, path: Path, size: Size) -> None:
        self._path, self._size = path, size
        try:
            self._container = av.open(str(path))
        except (FFmpegError, OSError) as error:
            raise self._unreadable(error) from None
        if not self._container.streams.video:
            self.close()
            raise DataError(f"{path}: expected a video, found none in the file")
        self._stream = self._container.streams.video[0]
        if self._stream.codec_context is None:
            self.close()
            raise DataError(
                f"{path}: its codec is not available in the PyAV {av.__version__} that is installed: install another, "
                "or convert the video (ffmpeg -i IN -c:v libx264 OUT)"
            )
        self._frames, self._next = self._decoded(), None

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def read(self, start_s: float, fps: float, into: np.ndarray) -> None:
        """Read the pictures at start_s, start_s + 1/fps, … into uint8 (count, height, width, 3).

        Raises:
            DataError: one of them is not there, within half a frame, or cannot be decoded.
        """
        half = 0.5 / fps
        self._seek(start_s - half)
        for number in range(len(into)):
            wanted = start_s + number / fps
            frame = self._from(wanted - half)
            if frame is None or frame.time >= wanted + half:
                found = "its end" if frame is None else f"one at {frame.time:.4f} s"
                raise DataError(
                    f"{self._path}: expected a picture at {wanted:.4f} s ({fps:g} per second), found {found}"
                )
            into[number] = scaled(frame, self._size)
            self._next = None

    def _from(self, time_s: float) -> Any:
        """Return the first frame at this time or later, None at the end; it stays the next one."""
        while self._next is None or self._next.time < time_s:
            self._next = next(self._frames, None)
            if self._next is None:
                return None
        return self._next

    def _seek(self, time_s: float) -> None:
        """Go back to a picture that stands alone, where what is wanted has passed."""
        self._next = self._next or next(self._frames, None)
        if self._next is None or self._next.time >= time_s + 1e-6:
            offset = int(max(time_s, 0.0) / float(self._stream.time_base or 1))
            self._container.seek(offset, stream=self._stream)
            self._frames, self._next = self._decoded(), None

    def _decoded(self) -> Iterator[Any]:
        try:
            for frame in self._container.decode(self._stream):
                if frame.time is not None:
                    yield frame
        except (FFmpegError, OSError) as error:
            raise self._unreadable(error) from None

    def _unreadable(self, error: Exception) -> DataError:
        return DataError(f"{self._path} cannot be read as a video ({error}): download it again")


class FilmWriter:
    """Writes pictures as a video of a constant rate.

    Args:
        path: the file.
        size: of the pictures.
        fps: pictures per second.
    """

    def __init__(self, path: Path, size: Size, fps: float) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._rate = Fraction(fps).limit_denominator(1001)
        self._container = av.open(str(path), "w")
        self._stream: Any = self._container.add_stream(
            CODEC, rate=self._rate, options={"crf": QUALITY, "g": KEY_EVERY, "preset": "veryfast"}
        )
        self._stream.height, self._stream.width = size
        # half the colours' resolution needs even sides
        self._stream.pix_fmt = "yuv420p" if size[0] % 2 == size[1] % 2 == 0 else "yuv444p"
        self._stream.time_base = self._stream.codec_context.time_base = 1 / self._rate
        self.count = 0
        self.path = path

    def append(self, pictures: np.ndarray) -> None:
        """Append pictures, uint8 (n, height, width, 3)."""
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=PICTURE)
            frame.pts, frame.time_base = self.count, 1 / self._rate
            self.count += 1
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    @property
    def info(self) -> dict[str, Any]:
        """What LeRobot's info.json tells of a video."""
        return {
            "video.height": self._stream.height,
            "video.width": self._stream.width,
            "video.codec": "h264",
            "video.pix_fmt": self._stream.pix_fmt,
            "video.fps": float(self._rate) if self._rate.denominator > 1 else int(self._rate),
            "video.channels": 3,
            "has_audio": False,
            "is_depth_map": False,
        }


def scaled(frame: Any, size: Size) -> np.ndarray:
    """Return a decoded frame as uint8 (*size, 3), averaged over the pixels that become one."""
    if (frame.height, frame.width) != size:
        frame = frame.reformat(width=size[1], height=size[0], format=PICTURE, interpolation="AREA")
    return frame.to_ndarray(format=PICTURE)


def read_picture(content: bytes, size: Size, where: str) -> np.ndarray:
    """Decode a PNG or JPEG: uint8 (*size, 3).

    Raises:
        DataError: it is neither, or damaged.
    """
    try:
        with av.open(io.BytesIO(content), "r") as container:
            return scaled(next(container.decode(video=0)), size)
    except (FFmpegError, OSError, StopIteration, IndexError) as error:
        raise DataError(f"{where}: expected a picture (PNG or JPEG), which cannot be read: {error}") from None


class PictureWriter:
    """Encodes pictures as PNG, without loss.

    Args:
        size: of the pictures.
    """

    def __init__(self, size: Size) -> None:
        self._size = size

    def encode(self, picture: np.ndarray) -> bytes:
        """Encode a picture, uint8 (height, width, 3)."""
        codec: Any = av.CodecContext.create("png", "w")
        codec.height, codec.width = self._size
        codec.pix_fmt, codec.time_base = PICTURE, Fraction(1)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=PICTURE)
        return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
