/** The replica's part of initial replication by external media. */
import { UnderstudyError } from '../../model/errors.ts';
import { importExport } from '../../replication/import-reader.ts';
import type { HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';
import { statusShape } from '../status.ts';

export function importOperation(host: Host): Pick<HostOperations, 'import'> {
  const running = new Set<string>();
  return {
    'import': async ({ name, from }, { signal, progress }) => {
      const { vmId } = host.vm(name);
      host.relationships.check(vmId, 'import');
      if (running.has(vmId)) {
        throw new UnderstudyError('state', 'IMPORT_RUNNING', `VM '${name}' is being imported already`, 'Wait until that import has ended.');
      }
      running.add(vmId);
      try {
        await importExport(host.ports, host.replicas.get(vmId)!, from, {
          signal, progress: (done, total, disk) => progress({ phase: 'import', done, total, unit: 'bytes', disk }) });
      } finally {
        running.delete(vmId);
      }
      return statusShape(host, host.vm(name));
    },
  };
}
