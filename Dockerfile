# The program eventstore: "eventstore up" against the server that the environment names. docker-compose.yml shows how.
# Base images are tags of a release and a distribution: a rebuild brings fixes, and never another Python or C library.

FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY . .
# hadolint ignore=DL3013
RUN python -m venv --without-pip /opt/eventstore \
 && pip --python /opt/eventstore install --no-cache-dir --no-warn-script-location '.[a2a,bucket]'

FROM python:3.13-slim-bookworm
# The program needs no installer, and this base image has no compiler.
RUN python -m pip uninstall --yes --root-user-action=ignore pip
# A new volume takes over the owner of the folder that it is mounted on.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin eventstore \
 && install --directory --owner=10001 --group=10001 --mode=0700 /backups
COPY --from=build /opt/eventstore /opt/eventstore
ENV PATH=/opt/eventstore/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number: Kubernetes checks that it is not root.
USER 10001:10001
EXPOSE 8080
# For "up": PostgreSQL responds. "project" has no port; docker-compose.yml checks its session.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import http.client; c = http.client.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/ready'); raise SystemExit(c.getresponse().status != 200)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["eventstore"]
CMD ["up", "--host", "0.0.0.0"]
