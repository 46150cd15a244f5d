"""glTF 2.0 files (.glb, .gltf, .vrm): their JSON, by pygltflib, with its arrays and images."""

import os
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pygltflib import GLTF2

from sf_jax.media import images, small_files
from sf_jax.render.rigs.arrays import RigError

try:
    import meshopt
except ImportError:  # an extra of the package
    meshopt = None  # type: ignore[assignment]

MOST_BYTES = 2**30  # of a file or a buffer
MOST_PIXELS = 8192**2  # of a texture
_TYPES = {
    5120: np.int8,
    5121: np.uint8,
    5122: np.int16,
    5123: np.uint16,
    5125: np.uint32,
    5126: np.float32,
}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
DRACO, MESHOPT = "KHR_draco_mesh_compression", "EXT_meshopt_compression"
GLB = b"glTF"


class File:
    """A glTF file.

    Attributes:
      path: of the file.
      json: pygltflib's objects.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        content = small_files.read_bytes(self.path, RigError, most_bytes=MOST_BYTES)
        self.json: GLTF2 = self._parsed(content)
        if not isinstance(self.json, GLTF2) or self.json.asset is None:
            raise self.error("no glTF: it has no asset")
        required = self.json.extensionsRequired or []
        if DRACO in required:
            problem = f"its meshes are compressed ({DRACO}), which is not read; store them without "
            raise self.error(f"{problem}Draco compression")
        if MESHOPT in required and meshopt is None:
            problem = f"its meshes are compressed ({MESHOPT}): install meshopt (pip install "
            raise self.error(f"{problem}'sf_jax[meshopt]'), or store them without")

    def error(self, problem: str, field: str | None = None) -> RigError:
        return RigError(problem, path=self.path, field=field)

    def _parsed(self, content: bytes) -> GLTF2:
        if content[:4] != GLB:
            what = small_files.recognised(content)
            if what is not None:
                raise self.error(f"no glTF: {what}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if content[:4] == GLB:
                    return GLTF2.load_from_bytes(content)
                return GLTF2.gltf_from_json(content.decode("utf-8"))
        except Exception as error:  # the library raises what the damage leads to
            raise self.error(f"no readable glTF: {error}") from error

    @cached_property
    def _decoded(self) -> dict[int, bytes]:
        return {}

    @cached_property
    def _buffers(self) -> dict[int, bytes]:
        return {}

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            uri = self.json.buffers[index].uri
            if uri is None:
                content = self.json.binary_blob() or b""
            elif uri.startswith("data:"):
                content = self.json.decode_data_uri(uri)
            else:
                content = small_files.read_bytes(self._beside(uri), RigError, MOST_BYTES)
            self._buffers[index] = content
        return self._buffers[index]

    def _beside(self, uri: str) -> Path:
        """A file that the glTF names; only such in its own folder are read."""
        folder = self.path.parent.resolve()
        found = (folder / uri).resolve()
        if not found.is_relative_to(folder):
            raise self.error(f"names a file outside its folder: {uri!r:.60}")
        return found

    def _view(self, index: int) -> tuple[bytes, int, int | None]:
        """The bytes of a buffer view, its length and its stride."""
        view = self.json.bufferViews[index]
        packed = (view.extensions or {}).get(MESHOPT)
        if packed and meshopt is not None:
            return self._unpacked(index, packed)
        start = view.byteOffset or 0
        content = self._buffer(view.buffer)[start : start + view.byteLength]
        if len(content) < view.byteLength:
            raise self.error(f"buffer view {index} is cut off")
        return content, view.byteLength, view.byteStride

    def _unpacked(self, index: int, packed: dict) -> tuple[bytes, int, int | None]:
        """A compressed buffer view, decoded once."""
        if index not in self._decoded:
            count, stride = packed["count"], packed["byteStride"]
            if not 0 <= count * stride <= MOST_BYTES:
                raise self.error(f"buffer view {index} takes more than {MOST_BYTES >> 20} MiB")
            start = packed.get("byteOffset", 0)
            content = self._buffer(packed["buffer"])[start : start + packed["byteLength"]]
            kept = packed.get("filter", "NONE")
            decoded = meshopt.decode_gltf_buffer(content, count, stride, packed["mode"], kept)
            self._decoded[index] = np.ascontiguousarray(decoded).tobytes()
        content = self._decoded[index]
        stride = packed["byteStride"] if packed["mode"] == "ATTRIBUTES" else None
        return content, len(content), stride

    def _elements(self, view: int, offset: int, kind: int, width: int, count: int) -> np.ndarray:
        dtype = np.dtype(_TYPES[kind]).newbyteorder("<")
        content, length, stride = self._view(view)
        size = dtype.itemsize * width
        stride = stride or size
        if count and offset + stride * (count - 1) + size > length:
            raise self.error(f"an array of {count} elements is cut off (buffer view {view})")
        return np.ndarray((count, width), dtype, content, offset, (stride, dtype.itemsize)).copy()

    def array(self, index: int) -> np.ndarray:
        """An accessor's elements [count, width]: floats if normalised or of floats, else integers.

        Raises:
          RigError: it is damaged.
        """
        try:
            return self._array(index)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, RigError):
                raise
            raise self.error(f"accessor {index} cannot be read: {error}") from error

    def _array(self, index: int) -> np.ndarray:
        accessor = self.json.accessors[index]
        width, count = _WIDTHS[accessor.type], accessor.count
        if count * width > MOST_BYTES // 4:
            raise self.error(f"accessor {index} has {count} elements")
        if accessor.bufferView is None:
            values = np.zeros((count, width), _TYPES[accessor.componentType])
        else:
            values = self._elements(
                accessor.bufferView, accessor.byteOffset or 0, accessor.componentType, width, count
            )
        if accessor.sparse is not None:
            sparse = accessor.sparse
            at = self._elements(
                sparse.indices.bufferView,
                sparse.indices.byteOffset or 0,
                sparse.indices.componentType,
                1,
                sparse.count,
            )
            values[at[:, 0]] = self._elements(
                sparse.values.bufferView,
                sparse.values.byteOffset or 0,
                accessor.componentType,
                width,
                sparse.count,
            )
        if accessor.normalized and values.dtype.kind in "iu":
            limit = np.iinfo(values.dtype).max
            return np.maximum(values.astype(np.float32) / limit, -1)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise self.error(f"accessor {index} holds NaN or infinity")
        return values

    def image(self, index: int) -> np.ndarray | None:
        """An image as uint8 [h, w, 4] RGBA; None where it is of a kind that is not read."""
        image: Any = self.json.images[index]
        try:
            if image.bufferView is not None:
                content = self._view(image.bufferView)[0]
            elif (image.uri or "").startswith("data:"):
                content = self.json.decode_data_uri(image.uri)
            else:
                path = self._beside(image.uri)
                content = small_files.read_bytes(path, RigError, most_bytes=MOST_BYTES)
            return images.rgba_of_bytes(content, MOST_PIXELS)
        except (images.ImageError, ValueError, TypeError, IndexError):
            return None
