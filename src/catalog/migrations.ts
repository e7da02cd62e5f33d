/**
 * Cycles out of the value `prefix` + VM, an array of [at, outcome's number, bytes, latency in ms], into rows of their own. What is no cycle is
 * left out: they are only shown.
 */
const movedCycles = (prefix: string, table: string): string => `
   INSERT INTO ${table} (vm_id, sequence, at, outcome, bytes, latency_ms)
   SELECT substr(settings.key, ${prefix.length + 1}), cycle.key + 1, round(cycle.value ->> 0),
     CASE cycle.value ->> 1 WHEN 0 THEN 'success' WHEN 1 THEN 'missed' WHEN 2 THEN 'late' ELSE 'failed-attempt' END,
     round(cycle.value ->> 2), round(cycle.value ->> 3)
   FROM settings, json_each(CASE WHEN json_valid(settings.body) THEN settings.body ELSE '[]' END) AS cycle
   WHERE settings.key LIKE '${prefix}%' AND cycle.type = 'array' AND json_array_length(cycle.value) = 4
     AND cycle.value ->> 1 IN (0, 1, 2, 3)
     AND (SELECT count(*) FROM json_each(cycle.value) AS part WHERE part.type IN ('integer', 'real')) = 4;
   DELETE FROM settings WHERE key LIKE '${prefix}%';`;

/** The schema, as the steps that made it. A step is never changed once released; a new one is appended. */
export const MIGRATIONS: readonly string[] = [
  `CREATE TABLE vms (vm_id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, body TEXT NOT NULL) STRICT;
   CREATE TABLE relationships (vm_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
   CREATE TABLE epochs (vm_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (vm_id, epoch)) STRICT;
   CREATE TABLE inbox (vm_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (vm_id, epoch)) STRICT;
   CREATE TABLE authorizations (fingerprint TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
   CREATE TABLE events (sequence INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, vm_name TEXT, body TEXT NOT NULL) STRICT;
   CREATE INDEX events_by_vm ON events (vm_name, sequence);
   CREATE TABLE settings (key TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;`,
  'CREATE TABLE points (vm_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (vm_id, epoch)) STRICT;',
  `CREATE TABLE extended_relationships (vm_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
   CREATE TABLE extended_tracking (vm_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT;
   CREATE TABLE extended_epochs (vm_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (vm_id, epoch)) STRICT;
   CREATE TABLE extended_sets (vm_id TEXT NOT NULL, epoch INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (vm_id, epoch)) STRICT;`,
  `${['cycles', 'extended_cycles'].map((name) => `CREATE TABLE ${name} (vm_id TEXT NOT NULL, sequence INTEGER NOT NULL, at INTEGER NOT NULL,
     outcome TEXT NOT NULL, bytes INTEGER NOT NULL, latency_ms INTEGER NOT NULL, PRIMARY KEY (vm_id, sequence)) STRICT, WITHOUT ROWID;`).join('\n')}
   ${movedCycles('cycles/', 'cycles')} ${movedCycles('extended cycles/', 'extended_cycles')}`,
];
