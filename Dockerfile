# The service: eventstore up, against the server that the environment names.
FROM python:3.13-slim
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir . && useradd --create-home eventstore
USER eventstore
WORKDIR /home/eventstore
ENTRYPOINT ["eventstore"]
CMD ["up"]
