# Creates the database's folder once, then runs the server. The image's own entrypoint requires a password, and there is none.
set -euo pipefail
export PATH="$PATH:/usr/lib/postgresql/${PG_MAJOR:-17}/bin"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  rm -rf "$PGDATA.new"
  initdb -D "$PGDATA.new" -U postgres --auth-local=peer --auth-host=reject --encoding=UTF8 --locale=C --no-instructions
  mv "$PGDATA.new" "$PGDATA"
fi
# The certificate was in memory and is lost with the last pod. Start without TLS, as at first, until dbkeeper writes another.
if [ ! -s "$TLS_DIR/server.crt" ]; then
  sed -i '/^ssl/d' "$PGDATA/postgresql.auto.conf"
fi
exec postgres -D "$PGDATA" -c config_file=/etc/postgresql/postgresql.conf -c hba_file=/etc/postgresql/pg_hba.conf \
  -c ident_file=/etc/postgresql/pg_ident.conf -c listen_addresses='*' -c port="$DB_PORT" -c unix_socket_directories="$PGHOST"
