# `peterrec serve` in a container: docker build --tag peterrec . (docs/serving.md: Samples)
#
# A wheel is built from the sources in the first stage; the second has neither them nor what builds. On Linux PyPI's torch
# brings CUDA, 5 GB: `--build-arg TORCH_INDEX=` the address of PyTorch's own index of CPU builds spares them.

FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE CHANGELOG.md CITATION.cff ./
COPY src src
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
ARG TORCH_INDEX=""
COPY requirements/constraints.txt /wheels/
COPY --from=build /wheels /wheels
# torch first and by exact version: some indexes then give the small CPU build.
RUN export PIP_EXTRA_INDEX_URL="$TORCH_INDEX" \
 && python -m pip install --no-cache-dir "$(grep '^torch==' /wheels/constraints.txt)" \
 && python -m pip install --no-cache-dir --constraint /wheels/constraints.txt "$(echo /wheels/peterrec-*.whl)[serve]" \
 && rm -r /wheels
RUN useradd --uid 1000 --create-home peterrec && install -d -o 1000 -g 1000 /state /bundles
USER 1000
# Mounted: /runs with the backbone, /bundles that operators may load, /keys/keys.yaml; /state outlives the container.
VOLUME ["/state"]
ENV PORT=8000
EXPOSE 8000
# It listens when its bundles are loaded; /healthz needs no key.
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --start-interval=2s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/healthz', timeout=4)"]
STOPSIGNAL SIGTERM
CMD ["peterrec", "serve", "/runs/backbone", "--host=0.0.0.0", "--port=8000", "--keys=/keys/keys.yaml", "--state=/state", "--bundle-root=/bundles"]
