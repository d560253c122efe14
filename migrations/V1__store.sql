-- Few rows and integers. A message is one row here, its octets are bytes [start, …) of a segment file in spool/.
PRAGMA application_id = 0x4d574b31;

CREATE TABLE messages (
    id          BLOB    NOT NULL PRIMARY KEY,   -- ULID, 16 octets: octet order is time order
    sender      TEXT,                           -- NULL: the null reverse-path <>
    recipients  TEXT    NOT NULL,               -- addresses, one a line: for lists and filters
    envelope    TEXT    NOT NULL,               -- JSON
    client      TEXT,                           -- JSON; NULL: authored here
    subject     TEXT,
    header_from TEXT,
    outcome     INTEGER NOT NULL,               -- 0 accepted, 1 stored, 2 dropped, 3 rejected, 4 deferred, 5 authored
    fingerprint BLOB    NOT NULL,
    segment     INTEGER,                        -- NULL: the octets are gone, or never were kept
    start       INTEGER NOT NULL,               -- of the record in its segment
    head_size   INTEGER NOT NULL,
    size        INTEGER NOT NULL,
    keep_until  INTEGER,                        -- Unix milliseconds; NULL: by the retention setting
    mailbox     TEXT,
    deliveries  INTEGER NOT NULL                -- how many it ever had: the next one's number
) WITHOUT ROWID;

-- Ends in the id, so the newest message of a segment is one step away.
CREATE INDEX messages_segment ON messages (segment) WHERE segment IS NOT NULL;

-- What is not settled: a settled delivery's row is deleted, and the trace tells its history.
CREATE TABLE deliveries (
    message       BLOB    NOT NULL,
    n             INTEGER NOT NULL,
    state         INTEGER NOT NULL,             -- 0 queued, 1 dead
    destination   TEXT    NOT NULL,
    task          TEXT    NOT NULL,             -- JSON
    attempts      INTEGER NOT NULL,
    queued_at     INTEGER NOT NULL,
    due           INTEGER NOT NULL,
    last_error    TEXT,
    delay_noticed INTEGER NOT NULL,
    PRIMARY KEY (message, n)
) WITHOUT ROWID;

CREATE INDEX deliveries_due ON deliveries (due, message, n) WHERE state = 0;

-- One row for the acceptance, one for each settlement and each act of an admin.
CREATE TABLE trace (
    message BLOB    NOT NULL,
    seq     INTEGER NOT NULL,
    events  TEXT    NOT NULL,                   -- a JSON array
    PRIMARY KEY (message, seq)
) WITHOUT ROWID;

-- Events of no accepted message: refusals, faults.
CREATE TABLE log (
    id    INTEGER PRIMARY KEY,
    at    INTEGER NOT NULL,
    event TEXT    NOT NULL                      -- JSON
);

CREATE TABLE kv (
    namespace  TEXT    NOT NULL,
    key        TEXT    NOT NULL,
    kind       INTEGER NOT NULL,                -- 0 text, 1 blob, 2 JSON
    metadata   TEXT,                            -- JSON
    expires_at INTEGER,
    version    INTEGER NOT NULL,
    value      BLOB    NOT NULL,
    PRIMARY KEY (namespace, key)
) WITHOUT ROWID;

CREATE INDEX kv_expires ON kv (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE counters (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('kv_version', 0);
