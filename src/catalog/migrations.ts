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
];
