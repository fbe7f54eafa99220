# The service without torch, compilers or package managers; writes only to /tmp and /var/lib/lungnodule.
#
#   docker build --target cpu  --tag lungnodule:cpu .
#   docker build --target cuda --tag lungnodule:cuda .
#
# Pin BASE_IMAGE by digest in production. Any Debian-like base with Python 3.11+ and venv will do; the last stage copies an
# environment made on the same base. Behind a mirror: --build-arg PIP_INDEX_URL=..., or mount a pip.conf.
ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm

FROM ${BASE_IMAGE} AS environment
ARG PIP_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python3 -m venv /opt/lungnodule
COPY requirements/service.lock requirements/
RUN /opt/lungnodule/bin/pip install --quiet --no-deps --require-hashes -r requirements/service.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
RUN /opt/lungnodule/bin/pip install --quiet --no-deps --no-build-isolation . \
    && /opt/lungnodule/bin/lungnodule --version

FROM environment AS environment-cpu
RUN /opt/lungnodule/bin/pip uninstall --quiet --yes setuptools pip

FROM ${BASE_IMAGE} AS base
LABEL org.opencontainers.image.title="lungnodule" \
      org.opencontainers.image.description="Lung nodules in chest CT. Research use only, not for diagnosis." \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/lungnodule/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LUNGNODULE_DATA_DIR=/var/lib/lungnodule \
    LUNGNODULE_MODEL_STORE=/srv/lungnodule/model_store
WORKDIR /srv/lungnodule
RUN mkdir -p /var/lib/lungnodule && chown 10001:10001 /var/lib/lungnodule
COPY model_store model_store
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
ENTRYPOINT ["lungnodule"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]

FROM base AS cpu
COPY --from=environment-cpu /opt/lungnodule /opt/lungnodule

FROM environment AS environment-cuda
COPY requirements/cuda.lock requirements/
RUN /opt/lungnodule/bin/pip install --quiet --no-deps --require-hashes -r requirements/cuda.lock \
    && /opt/lungnodule/bin/pip uninstall --quiet --yes setuptools pip

FROM base AS cuda
# The driver comes from the host (NVIDIA container toolkit); without a GPU this image refuses to start.
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    LUNGNODULE_REQUIRE_GPU=1
COPY --from=environment-cuda /opt/lungnodule /opt/lungnodule

# What a build without --target makes.
FROM cpu AS default
