"""The tables, and what a file of another version means."""

from __future__ import annotations

VERSION = 1

TABLES = """
CREATE TABLE inspections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of arrival, whatever the clock says
    category TEXT NOT NULL,
    name TEXT NOT NULL,                    -- the file's name, for people
    source TEXT NOT NULL,                  -- 'dropped', or the journal it was read from
    number INTEGER,                        -- in that journal
    picture TEXT,                          -- the file, relative to the pictures' folder; NULL where it was gone
    arrived_at REAL NOT NULL,              -- seconds since 1970, UTC
    outcome TEXT NOT NULL CHECK (outcome IN ('waiting', 'failed', 'good', 'reject')),
    reason TEXT,                           -- why it is not judged
    score REAL, threshold REAL, release_id INTEGER, latency_ms REAL, synthetic INTEGER,
    width INTEGER, height INTEGER,         -- of the picture, upright
    defects TEXT,                          -- JSON
    largest_defect INTEGER,                -- its area in pixels of the picture; 0 where there is none
    changed INTEGER NOT NULL               -- rises with every change of any row
);
CREATE UNIQUE INDEX inspections_source ON inspections (source, number) WHERE number IS NOT NULL;
CREATE UNIQUE INDEX inspections_changed ON inspections (changed);
CREATE INDEX inspections_shift ON inspections (category, arrived_at, outcome);
CREATE INDEX inspections_outcome ON inspections (outcome, category, id);
CREATE INDEX inspections_pictures ON inspections (id) WHERE picture IS NOT NULL;
CREATE INDEX inspections_release ON inspections (category, release_id, id);
CREATE INDEX inspections_defect ON inspections (category, largest_defect, id);
CREATE INDEX inspections_scores ON inspections (category, id, outcome, score, release_id);
CREATE TABLE thumbnails (inspection INTEGER PRIMARY KEY REFERENCES inspections, jpeg BLOB NOT NULL);
CREATE TABLE maps (
    inspection INTEGER PRIMARY KEY REFERENCES inspections,
    release_id INTEGER NOT NULL,           -- which drew it
    low REAL NOT NULL, high REAL NOT NULL, -- what the darkest and brightest value of the picture stand for
    map BLOB NOT NULL, mask BLOB NOT NULL  -- PNG of 16 bits, and of 1
);
CREATE TABLE marks (
    inspection INTEGER PRIMARY KEY REFERENCES inspections,
    wrong TEXT NOT NULL CHECK (wrong IN ('escape', 'false reject')),
    note TEXT NOT NULL, mask BLOB, who TEXT NOT NULL, made_at REAL NOT NULL
);
CREATE TABLE retunings (
    id INTEGER PRIMARY KEY, category TEXT NOT NULL, made_at REAL NOT NULL, who TEXT NOT NULL, reason TEXT NOT NULL,
    threshold REAL NOT NULL, release_before INTEGER, release_after INTEGER
);
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
