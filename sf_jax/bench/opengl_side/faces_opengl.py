"""`faces_opengl.py WAY JOB.npz SIDE SECONDS`: heads drawn by OpenGL, as many as in that time.

WAY is "pyrender", a renderer made for such pictures, or "moderngl", the least that OpenGL needs.

The job holds `vertices`, float32 [N, V, 3], posed heads; `normals`, the same shape; `colours`,
float32 [V, 3]; `triangles`, int32 [T, 3]; `clip`, float32 [N, 4, 4], rows of the matrices from
world to clip space; `middles`, float32 [N, 3], at which the camera, `camera` cm away, is directed.
Of each head its vertices and normals are uploaded, it is drawn with four samples a pixel and light
a fragment, and the image is read back; posing and normals are not counted.
Prints one line of JSON: images, seconds, CPU seconds, renderer.
"""

import json
import os
import sys
import time
from collections.abc import Callable

import numpy as np

LIGHTS = {"key": (0.3, 0.5, 0.8), "fill": (-0.3, 0.1, 0.8), "halfway": (0.15, 0.27, 0.95)}
VERTEX = """
#version 330
uniform mat4 clip;
in vec3 position; in vec3 normal; in vec3 colour;
out vec3 n; out vec3 c;
void main() { gl_Position = clip * vec4(position, 1.0); n = normal; c = colour; }
"""
FRAGMENT = """
#version 330
uniform vec3 key; uniform vec3 fill; uniform vec3 halfway;
in vec3 n; in vec3 c;
out vec4 pixel;
void main() {
  vec3 m = normalize(n);
  float light = 0.45 + 0.6 * max(dot(m, key), 0.0) + 0.15 * max(dot(m, fill), 0.0);
  pixel = vec4(c * light + 0.1 * pow(max(dot(m, halfway), 0.0), 16.0), 1.0);
}
"""


def with_moderngl(job: dict, side: int) -> tuple[Callable[[int], np.ndarray], str]:
    """Draws head i as uint8 [side, side, 3], and the renderer's name."""
    import moderngl

    context = moderngl.create_standalone_context(backend="egl")
    context.enable(moderngl.DEPTH_TEST | moderngl.CULL_FACE)
    program = context.program(vertex_shader=VERTEX, fragment_shader=FRAGMENT)
    for name, direction in LIGHTS.items():
        program[name] = tuple(np.array(direction) / np.linalg.norm(direction))
    size = job["vertices"][0].nbytes
    positions, normals = (context.buffer(reserve=size, dynamic=True) for _ in range(2))
    colours = context.buffer(np.ascontiguousarray(job["colours"], np.float32).tobytes())
    indices = context.buffer(job["triangles"].astype(np.int32).tobytes())
    parts = [(positions, "3f", "position"), (normals, "3f", "normal"), (colours, "3f", "colour")]
    mesh = context.vertex_array(program, parts, indices)
    depth = context.depth_renderbuffer((side, side), samples=4)
    many = context.framebuffer([context.renderbuffer((side, side), 3, samples=4)], depth)
    one = context.framebuffer([context.renderbuffer((side, side), 3)])

    def drawn(i: int) -> np.ndarray:
        positions.write(job["vertices"][i].tobytes())
        normals.write(job["normals"][i].tobytes())
        program["clip"].write(job["clip"][i].astype(np.float32).T.tobytes())
        many.use()
        many.clear(0.72, 0.72, 0.72, 1.0)
        mesh.render()
        context.copy_framebuffer(one, many)
        return np.frombuffer(one.read(components=3), np.uint8).reshape(side, side, 3)[::-1]

    return drawn, context.info["GL_RENDERER"]


def with_pyrender(job: dict, side: int) -> tuple[Callable[[int], np.ndarray], str]:
    """Draws head i as uint8 [side, side, 3], and the renderer's name."""
    os.environ["PYOPENGL_PLATFORM"] = "egl"
    import pyrender
    from OpenGL.GL import GL_RENDERER, glGetString

    renderer = pyrender.OffscreenRenderer(side, side)
    scene = pyrender.Scene(bg_color=[0.72] * 3, ambient_light=[0.45] * 3)
    camera = scene.add(pyrender.PerspectiveCamera(yfov=2 * np.arctan(1 / job["clip"][0][1, 1])))
    for intensity in (2.0, 0.5):
        scene.add(pyrender.DirectionalLight(color=np.ones(3), intensity=intensity))

    def drawn(i: int) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, 3] = job["middles"][i] + [0, 0, job["camera"]]
        scene.set_pose(camera, pose)
        head = pyrender.Primitive(
            positions=job["vertices"][i],
            normals=job["normals"][i],
            color_0=job["colours"],
            indices=job["triangles"],
            mode=4,
        )
        node = scene.add(pyrender.Mesh([head]))
        image, _ = renderer.render(scene)
        scene.remove_node(node)
        return image

    drawn(0)
    return drawn, glGetString(GL_RENDERER).decode()


WAYS = {"moderngl": with_moderngl, "pyrender": with_pyrender}


def main(way: str, path: str, side: int, seconds: float) -> None:
    job = dict(np.load(path))
    drawn, renderer = WAYS[way](job, side)
    count, shown = len(job["vertices"]), drawn(0)
    images, begin, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begin < seconds:
        shown = drawn(images % count)
        images += 1
    found = {
        "images": images,
        "seconds": time.perf_counter() - begin,
        "cpu": time.process_time() - cpu,
        "renderer": renderer,
    }
    if len(sys.argv) > 5:
        np.save(sys.argv[5], shown)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
