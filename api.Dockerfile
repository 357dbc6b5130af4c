# The dispatcher: HTTP API, RunPod gateway, Flower and the command line. No ctranslate2, av or numpy.
#
#   docker build -f api.Dockerfile -t longhand-api .
#
# By command: python -m dispatcher.app | dispatcher.handler | dispatcher.dashboard, or longhand.
ARG PYTHON=python:3.11-slim-bookworm

FROM ${PYTHON} AS packages
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
COPY requirements/api.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/longhand \
    && pip --python /opt/longhand/bin/python install --no-deps --require-hashes -r requirements/api.txt \
    && pip install --no-deps --require-hashes -r requirements/build.txt
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir wheels . \
    && pip --python /opt/longhand/bin/python install --no-deps wheels/*.whl

FROM ${PYTHON}
RUN apt-get update \
    && apt-get install -y --no-install-recommends tini \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home longhand \
    && install -d -o longhand -g longhand /data
COPY --from=packages /opt/longhand /opt/longhand
# No module is imported from the folder a process happens to be in.
ENV PATH=/opt/longhand/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    LONGHAND_DATA_DIR=/data
USER 10001
EXPOSE 8000
ENTRYPOINT ["tini", "--"]
CMD ["python", "-m", "dispatcher.app", "--host", "0.0.0.0", "--port", "8000"]
