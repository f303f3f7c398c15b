# Jobflow and what it needs to serve; nothing to build or test with, and no servers of its own.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# First what changes seldom, so that a change of the program installs nothing again.
COPY requirements/build.txt requirements/serve.txt requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --quiet --require-hashes -r requirements/build.txt \
    && python -m venv --without-pip /opt/jobflow \
    && pip --python /opt/jobflow install --quiet --require-hashes --no-deps -r requirements/serve.txt
COPY . .
RUN pip wheel --quiet --no-deps --no-build-isolation --no-cache-dir --wheel-dir /wheels . \
    && pip --python /opt/jobflow install --quiet --no-deps --no-index /wheels/*.whl \
    && install -m 755 scripts/healthy.py /opt/jobflow/bin/healthy


FROM python:3.13-slim
LABEL org.opencontainers.image.title="Jobflow" \
      org.opencontainers.image.description="Background jobs over REST: submit work, see it run, never lose it." \
      org.opencontainers.image.licenses="MIT"
# The number is fixed, so that volumes and policies can name it.
RUN groupadd --gid 10001 jobflow \
    && useradd --uid 10001 --gid jobflow --no-create-home --home-dir /app --shell /usr/sbin/nologin jobflow
COPY --from=build /opt/jobflow /opt/jobflow
ENV PATH=/opt/jobflow/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    JOBFLOW_HOST=0.0.0.0
# Handlers of your own are found here. Nothing is ever written: the root file system may be read-only.
WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# /livez, since whatever restarts unhealthy containers must leave alone one that drains or waits for Postgres.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["healthy", "/livez"]
ENTRYPOINT ["jobflow"]
CMD ["serve"]
