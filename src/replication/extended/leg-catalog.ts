/**
 * The catalog as the leg to an extended replica sees it: the same VM, as if this host were its primary. So all that sends, ships and
 * resynchronizes works for a leg as it does for a guest's writes.
 */
import type { Catalog, VmRecord } from '../../model/records.ts';
import { vmFolder } from '../../tracking/tracking-ports.ts';

/** Where the leg's logs, queue and maps lie: apart from what the same VM may have here otherwise. */
export const legDataFolder = (dataFolder: string): string => `${dataFolder}/extended`;

/** `dataFolder`: the leg's. */
export function legCatalog(catalog: Catalog, dataFolder: string): Catalog {
  const { relationships, epochs, tracking, cycles } = catalog.extended;
  const asPrimary = (vm: VmRecord): VmRecord => ({
    ...vm, side: 'primary', attach: 'stopped', tracking: tracking.get(vm.vmId)?.tracking ?? null, logFolder: vmFolder({ dataFolder }, vm.vmId),
  });
  return {
    relationships, epochs, cycles, inbox: catalog.inbox, points: catalog.points, authorizations: catalog.authorizations, extended: catalog.extended,
    vms: {
      get: (vmId) => {
        const vm = catalog.vms.get(vmId);
        return vm === undefined ? undefined : asPrimary(vm);
      },
      // The disks are the replica's affair.
      put: (vm) => (vm.tracking === null ? tracking.remove(vm.vmId) : tracking.put({ vmId: vm.vmId, tracking: vm.tracking })),
      remove: (vmId) => tracking.remove(vmId),
      list: () => catalog.vms.list().filter(({ vmId }) => relationships.get(vmId) !== undefined).map(asPrimary),
    },
    transaction: (work) => catalog.transaction(work),
    lazyTransaction: (work) => catalog.lazyTransaction(work),
    vmByName: (name) => {
      const vm = catalog.vmByName(name);
      return vm === undefined ? undefined : asPrimary(vm);
    },
    addEvent: (event) => catalog.addEvent({ ...event, data: { ...event.data, relationship: 'Extended' } }),
    events: (filter) => catalog.events(filter),
    value: (key) => catalog.value(`extended ${key}`),
    setValue: (key, value) => catalog.setValue(`extended ${key}`, value),
    close: () => undefined,
  };
}
