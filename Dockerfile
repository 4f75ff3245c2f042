# The service: the page and the HTTP API. Nothing is downloaded when it runs.
FROM python:3.12-slim AS build

WORKDIR /source
RUN python -m venv /opt/anomaly-ov
COPY constraints.txt pyproject.toml README.md LICENSE NOTICE ./
COPY src ./src
COPY examples ./examples
RUN /opt/anomaly-ov/bin/pip install --no-cache-dir --disable-pip-version-check -c constraints.txt ".[server]"

FROM python:3.12-slim

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin anomaly-ov \
    && install --directory --owner anomaly-ov --mode 0700 /data
COPY --from=build /opt/anomaly-ov /opt/anomaly-ov
ENV PATH=/opt/anomaly-ov/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER anomaly-ov
WORKDIR /data
VOLUME /data
EXPOSE 8765
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --start-interval=2s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8765/readyz', timeout=4)"]
# Listens on all addresses of the container: set ANOMALY_OV_TOKEN, and publish the port with care.
ENTRYPOINT ["anomaly-ov"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8765", "--data", "/data"]
