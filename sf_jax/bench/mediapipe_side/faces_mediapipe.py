"""`faces_mediapipe.py TASK MODE`: MediaPipe Face Landmarker as a process that answers images.

TASK is the model's file, MODE "image" or "video": in the latter every image is the next frame of a
video, at 30 frames a second. The first line printed is {"version": …}. Then, for each image, one
line {"height": H, "width": W} and H * W * 3 bytes (RGB) are read, and one line printed: {"scores":
{name: 0 to 1} or null where no face was found, "milliseconds": of making MediaPipe's image of the
array and detecting}. Whatever the library itself prints goes to stderr.
"""

import json
import os
import sys
import time

FRAME_MS = 1000 / 30


def main() -> None:
    task, mode = sys.argv[1:]
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import mediapipe
    import numpy as np
    from mediapipe.tasks.python import BaseOptions, vision

    options = vision.FaceLandmarkerOptions(
        base_options=BaseOptions(model_asset_path=task),
        running_mode=vision.RunningMode[mode.upper()],
        output_face_blendshapes=True,
        num_faces=1,
    )
    with vision.FaceLandmarker.create_from_options(options) as landmarker:
        print(json.dumps({"version": mediapipe.__version__}), file=out, flush=True)
        for number, line in enumerate(iter(sys.stdin.buffer.readline, b"")):
            shape = json.loads(line)
            size = shape["height"], shape["width"], 3
            data = sys.stdin.buffer.read(size[0] * size[1] * size[2])
            pixels = np.frombuffer(data, np.uint8).reshape(size).copy()
            start = time.perf_counter()
            image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=pixels)
            if mode == "video":
                found = landmarker.detect_for_video(image, round(number * FRAME_MS))
            else:
                found = landmarker.detect(image)
            taken = (time.perf_counter() - start) * 1e3
            faces = found.face_blendshapes
            scores = {one.category_name: one.score for one in faces[0]} if faces else None
            print(json.dumps({"scores": scores, "milliseconds": taken}), file=out, flush=True)


if __name__ == "__main__":
    main()
