# A static binary in an empty image. The run root is a volume, so the image works with a read-only root as well.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /trafficd . && mkdir -p /empty/run/trafficd

FROM scratch
COPY --from=build /trafficd /trafficd
COPY --from=build /empty/run /run
VOLUME ["/run/trafficd"]
# Inside a container loopback would be out of reach.
ENV TRAFFICD_LISTEN=0.0.0.0:8080
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/trafficd","cop","--foreground"]
