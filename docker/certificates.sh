#!/usr/bin/env bash
# Make a certificate authority and a certificate for the SuperLink, for a trial on one
# machine. A real deployment uses its own authority and keeps ca.key elsewhere.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

folder="${1:-certificates}"
days="${DAYS:-365}"
if [[ -e "$folder/server.key" ]]; then
  echo "$folder/server.key must not exist yet; remove it to make new certificates." >&2
  exit 2
fi
mkdir -p "$folder"
umask 077

openssl ecparam -name prime256v1 -genkey -noout -out "$folder/ca.key"
openssl req -new -x509 -sha256 -days "$days" -key "$folder/ca.key" \
  -subj "/O=fedcot/CN=fedcot trial authority" -out "$folder/ca.crt"

openssl ecparam -name prime256v1 -genkey -noout -out "$folder/server.key"
openssl req -new -sha256 -key "$folder/server.key" \
  -subj "/O=fedcot/CN=superlink" -out "$folder/server.csr"
openssl x509 -req -sha256 -days "$days" -in "$folder/server.csr" \
  -CA "$folder/ca.crt" -CAkey "$folder/ca.key" -CAcreateserial \
  -extfile <(printf '%s\n' \
    "subjectAltName=DNS:superlink,DNS:localhost,IP:127.0.0.1" \
    "extendedKeyUsage=serverAuth") \
  -out "$folder/server.crt"

rm "$folder/server.csr"
# Containers read them as another user.
chmod 644 "$folder/ca.crt" "$folder/server.crt" "$folder/server.key"
echo "Certificates for $days days: $folder"
