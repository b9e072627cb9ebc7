# tidegate/kafka. From the root of the clone: docker build -f manifests/images/kafka.Dockerfile -t tidegate/kafka .
# Kafka's unmodified jars in /opt/kafka/libs and a Java runtime cut to what they use, on the PATH. No start script: the
# operator brings it, so that the official apache/kafka can be named in this image's place. The layout is that of the
# image which `cargo xtask` makes for the local cluster without a container engine (tests/cluster/src/images.rs).
FROM maven:3-eclipse-temurin-17 AS build
COPY tests/cluster/kafka/pom.xml /build/pom.xml
RUN mvn --batch-mode --no-transfer-progress dependency:copy-dependencies -f /build/pom.xml -DoutputDirectory=/build/libs
# The list of modules is kept in tests/cluster/kafka/modules, for this file and for xtask.
COPY tests/cluster/kafka/modules /build/modules
RUN jlink --add-modules "$(paste -sd, /build/modules)" --strip-java-debug-attributes --no-header-files --no-man-pages \
        --output /build/java \
    && /build/java/bin/java -Xshare:dump

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libstdc++6 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 1000 kafka \
    && useradd --uid 1000 --gid 1000 --home-dir /tmp --no-create-home --shell /usr/sbin/nologin kafka
COPY --from=build /build/java /opt/java/openjdk
COPY --from=build /build/libs /opt/kafka/libs
ENV JAVA_HOME=/opt/java/openjdk \
    LANG=C.UTF-8 \
    PATH=/opt/java/openjdk/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /opt/kafka
USER 1000:1000
