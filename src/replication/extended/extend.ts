/** Setting the leg to an extended replica up: on the replica, towards a third host. */
import { UnderstudyError } from '../../model/errors.ts';
import type { RelationshipRecord, RemoteHost } from '../../model/records.ts';
import type { RelationshipSettings } from '../../model/settings.ts';
import { announcementOf } from '../announcement.ts';
import { enableMessage } from '../messages.ts';
import { newSendingRelationship } from '../new-relationship.ts';
import type { ExtendedLeg } from './extended-leg.ts';
import type { ExtendedLegs } from './extended-legs.ts';

/** Hyper-V's: a third host is never fed every 30 s. */
export const LEG_FREQUENCY_SEC_MIN = 300;

/** Asks the third host for a place, and puts the leg on record there and here. @throws as `refuseLeg`, and what the third host answers */
export async function extend(
  legs: ExtendedLegs, first: RelationshipRecord, remote: RemoteHost, settings: RelationshipSettings, zone: string,
): Promise<ExtendedLeg> {
  const { ports, relationships } = legs;
  const { vmId } = first;
  const vm = relationships.vm(vmId);
  refuseLeg(vm.name, first, relationships.find(vmId));
  refuseSettings(vm.name, first, settings);
  if (remote.fingerprint === first.remote.fingerprint) {
    throw new UnderstudyError('usage', 'SAME_HOST', `host ${first.remote.name || first.remote.host} has VM '${vm.name}' as its primary`, 'Name a third host.');
  }
  const { result } = await ports.link(remote).call(enableMessage, { ...announcementOf(ports, vm, settings), extended: true });
  const relationship = newSendingRelationship({
    vmId, remote: { ...remote, name: result.replicaName }, settings, trustGroup: result.trustGroup, now: ports.clock.now(),
    hostSettings: ports.hostSettings(), zone,
  });
  ports.catalog.transaction(() => {
    ports.catalog.relationships.put(relationship);
    relationships.perform(vmId, 'enable');
  });
  return legs.add(vmId);
}

function refuseLeg(name: string, first: RelationshipRecord, known: RelationshipRecord | undefined): void {
  const there = first.remote.name || first.remote.host;
  if (first.side !== 'replica') {
    throw new UnderstudyError('state', 'WRONG_SIDE', `VM '${name}' is on this host as primary: operation 'extend' belongs on the replica, host ${there}`,
      `Run it on host ${there}.`);
  }
  if (first.extended === true) {
    throw new UnderstudyError('state', 'EXTENDED_REPLICA', `VM '${name}' is an extended replica here, fed by host ${there}: it cannot be extended further`,
      'A VM has one replica and one extended replica.');
  }
  if (known === undefined) return;
  throw new UnderstudyError('state', 'ALREADY_EXTENDED', `VM '${name}' has an extended replica already, on host ${known.remote.name || known.remote.host}`,
    `End it first: understudy remove '${name}' --extended`);
}

/** What a leg cannot be. @throws BAD_SETTING */
export function refuseSettings(name: string, first: RelationshipRecord, settings: RelationshipSettings): void {
  const { frequencySec } = first.settings;
  const refuse = (what: string, remedy: string) => new UnderstudyError('usage', 'BAD_SETTING', what, remedy);
  if (settings.frequencySec < LEG_FREQUENCY_SEC_MIN || settings.frequencySec < frequencySec) {
    throw refuse(`an extended replica every ${settings.frequencySec} s: VM '${name}' comes here every ${frequencySec} s, and a third host is fed `
      + 'every 300 or 900 s, never more often', `Give --frequency ${Math.max(LEG_FREQUENCY_SEC_MIN, frequencySec) === 300 ? '300 or 900' : '900'}.`);
  }
  if (settings.applicationConsistentHours > 0) {
    throw refuse('application-consistent points on an extended replica', 'They are kept on the replica; the third host keeps standard points.');
  }
  if (settings.excludedDisks.length > 0) throw refuse('an extended replica without some of the disks', 'It has the disks that the replica has.');
}
