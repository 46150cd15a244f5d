"""Small glTF files of the built-in head."""

import io
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import meshopt
import numpy as np
from PIL import Image

from sf_jax.face.channels import NAMES
from sf_jax.render.head import builtin
from sf_jax.render.rig import MATERIALS

HEAD = builtin()
KINDS = {
    np.dtype(np.float32): 5126,
    np.dtype(np.uint32): 5125,
    np.dtype(np.uint16): 5123,
    np.dtype(np.uint8): 5121,
}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Writer:
    """A glTF file in the making: a JSON object and its binary buffer."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.json: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": []}],
            "nodes": [],
            "meshes": [],
            "materials": [],
            "accessors": [],
            "bufferViews": [],
            "buffers": [],
        }

    def view(self, content: bytes) -> int:
        self.blob += bytes(-len(self.blob) % 4)
        start = len(self.blob)
        self.blob += content
        entry = {"buffer": 0, "byteOffset": start, "byteLength": len(content)}
        self.json["bufferViews"].append(entry)
        return len(self.json["bufferViews"]) - 1

    def array(self, values: np.ndarray, **fields: Any) -> int:
        rows = values.reshape(len(values), -1)
        entry = {
            "bufferView": self.view(np.ascontiguousarray(rows).tobytes()),
            "componentType": KINDS[values.dtype],
            "count": len(rows),
            "type": TYPES[rows.shape[1]],
            "min": rows.min(0).tolist(),
            "max": rows.max(0).tolist(),
        }
        self.json["accessors"].append(entry | fields)
        return len(self.json["accessors"]) - 1

    def sparse(self, values: np.ndarray) -> int:
        """An accessor that stores only the rows that are not zero."""
        at = np.flatnonzero(np.abs(values).max(1) > 0)
        sparse = {
            "count": len(at),
            "indices": {
                "bufferView": self.view(at.astype(np.uint16).tobytes()),
                "componentType": 5123,
            },
            "values": {"bufferView": self.view(values[at].astype(np.float32).tobytes())},
        }
        entry = {"componentType": 5126, "count": len(values), "type": "VEC3", "sparse": sparse}
        self.json["accessors"].append(entry)
        return len(self.json["accessors"]) - 1

    def mesh(
        self,
        name: str,
        triangles: np.ndarray,
        names: Callable[[str], str] | None,
        *,
        sparse: bool = False,
        extra: dict[str, np.ndarray] | None = None,
        material: int | None = None,
    ) -> int:
        """The mesh of some triangles of the head; its shapes are named by `names`, in metres."""
        used, inverse = np.unique(triangles, return_inverse=True)
        attributes = {"POSITION": self.array(0.01 * HEAD.neutral[used])}
        for key, values in (extra or {}).items():
            attributes[key] = self.array(values[used])
        primitive: dict[str, Any] = {
            "attributes": attributes,
            "indices": self.array(inverse.ravel().astype(np.uint32)),
        }
        mesh: dict[str, Any] = {"name": name, "primitives": [primitive]}
        if names is not None:
            store = self.sparse if sparse else self.array
            shapes = 0.01 * HEAD.blendshapes[:, used]
            primitive["targets"] = [{"POSITION": store(shape)} for shape in shapes]
            mesh["extras"] = {"targetNames": [names(name) for name in NAMES[:52]]}
        if material is not None:
            primitive["material"] = material
        self.json["meshes"].append(mesh)
        return len(self.json["meshes"]) - 1

    def node(self, root: bool = True, **fields: Any) -> int:
        self.json["nodes"].append(fields)
        if root:
            self.json["scenes"][0]["nodes"].append(len(self.json["nodes"]) - 1)
        return len(self.json["nodes"]) - 1

    def texture(self, image: np.ndarray, kind: str = "PNG") -> int:
        content = io.BytesIO()
        Image.fromarray(image).save(content, kind, lossless=True)
        self.json["images"] = [
            {"bufferView": self.view(content.getvalue()), "mimeType": f"image/{kind.lower()}"}
        ]
        plain = {"source": 0} if kind == "PNG" else {}
        self.json["textures"] = [plain | {"extensions": {"EXT_texture_webp": {"source": 0}}}]
        return 0

    def compress(self) -> None:
        """Stores every array of vertices as EXT_meshopt_compression does."""
        old, self.blob = self.blob, bytearray()
        strides = {
            accessor["bufferView"]: 4 * int(accessor["type"][-1])
            for accessor in self.json["accessors"]
            if accessor["type"].startswith("VEC") and accessor["componentType"] == 5126
        }
        for number, view in enumerate(self.json["bufferViews"]):
            content = bytes(old[view["byteOffset"] : view["byteOffset"] + view["byteLength"]])
            self.blob += bytes(-len(self.blob) % 4)
            place = {"buffer": 0, "byteOffset": len(self.blob)}
            if number in strides:
                rows = np.frombuffer(content, np.uint8).reshape(-1, strides[number])
                packed = meshopt.encode_gltf_buffer(rows, "ATTRIBUTES")
                view["extensions"] = {
                    "EXT_meshopt_compression": place
                    | {"byteLength": len(packed), "byteStride": strides[number]}
                    | {"count": len(rows), "mode": "ATTRIBUTES"}
                }
                self.blob += packed
            else:
                view |= place
                self.blob += content
        self.json["extensionsRequired"] = ["EXT_meshopt_compression"]

    def save(self, path: Path) -> Path:
        self.json["buffers"] = [{"byteLength": len(self.blob)}]
        text = json.dumps(self.json).encode()
        text += b" " * (-len(text) % 4)
        blob = bytes(self.blob) + bytes(-len(self.blob) % 4)
        length = 12 + 8 + len(text) + 8 + len(blob)
        header = b"glTF" + struct.pack("<II", 2, length)
        chunks = struct.pack("<I", len(text)) + b"JSON" + text
        chunks += struct.pack("<I", len(blob)) + b"BIN\0" + blob
        path.write_bytes(header + chunks)
        return path


def eyes_of(triangles: np.ndarray, eye: int) -> np.ndarray:
    """Whether each triangle belongs to an eyeball, 0 the left one."""
    ball = np.zeros(len(HEAD.neutral), bool)
    ball[HEAD.eyes[eye].vertices] = True
    return ball[triangles].all(1)


def simple(path: Path, names: Callable[[str], str]) -> Path:
    """One mesh of the whole head without hair and clothes."""
    writer = Writer()
    writer.node(mesh=writer.mesh("head", face_triangles(), names))
    return writer.save(path)


def face_triangles() -> np.ndarray:
    """The head without clothes, neck and hair."""
    away = np.isin(HEAD.material, [MATERIALS.index("cloth"), MATERIALS.index("hair")])
    return HEAD.triangles[~away[HEAD.triangles].any(1)]
