/** Who may import whom: the folders of src/, each with what it may reach. Imports point downward (docs/ARCHITECTURE.md). */
export const MAY_IMPORT: Record<string, readonly string[]> = {
  model: [],
  disk: ['model'],
  hrl: ['model'],
  nbd: ['model', 'disk'],
  peer: ['model'],
  tracking: ['model', 'disk', 'hrl'],
  replication: ['model', 'disk', 'hrl', 'tracking', 'peer'],
  resync: ['model', 'disk', 'hrl', 'tracking', 'peer', 'replication'],
  failover: ['model', 'disk', 'hrl', 'nbd', 'tracking', 'peer', 'replication'],
  catalog: ['model'],
  server: ['model', 'disk', 'hrl', 'nbd', 'peer', 'tracking', 'replication', 'resync', 'failover', 'catalog'],
  cli: ['model', 'disk', 'hrl', 'resync', 'server'],
};

/** The real ends of the ports: the only files besides main.ts that may touch clocks, dice and timers. */
export const PORT_FILES: readonly string[] = [
  'src/main.ts',
  'src/disk/host-clock.ts',
  'src/disk/host-files.ts',
];
