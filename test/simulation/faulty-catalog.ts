/** A catalog whose volume may be full or broken: then every transaction fails, at its commit, and nothing of it stays. */
import type { Catalog } from '../../src/model/records.ts';

export function faultyCatalog(catalog: Catalog, fault: () => Error | null): Catalog {
  const failing = <T>(work: () => T) => () => {
    const result = work();
    const error = fault();
    if (error !== null) throw error;
    return result;
  };
  return {
    vms: catalog.vms, epochs: catalog.epochs, relationships: catalog.relationships, inbox: catalog.inbox, points: catalog.points,
    authorizations: catalog.authorizations, cycles: catalog.cycles, extended: catalog.extended,
    transaction: (work) => catalog.transaction(failing(work)), lazyTransaction: (work) => catalog.lazyTransaction(failing(work)),
    vmByName: (name) => catalog.vmByName(name), addEvent: (event) => catalog.addEvent(event),
    events: (filter) => catalog.events(filter), value: (key) => catalog.value(key), setValue: (key, value) => catalog.setValue(key, value),
    close: () => catalog.close(),
  };
}
