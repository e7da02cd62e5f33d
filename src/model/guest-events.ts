/** Events about guests themselves: started and stopped by an adapter, asked through their agent. Part of the catalogue (events.ts). */
import { define, type Failure } from './event-definition.ts';

export const GUEST_EVENTS = {
  applicationConsistentFailed: define<{ reason: string }>(
    'ApplicationConsistentPointFailed',
    'Warning',
    'An application-consistent point could not be made; standard points are',
    (vm, { reason }) => `An application-consistent recovery point of VM '${vm}' could not be made: ${reason}. It is tried again within the hour.`,
  ),
  guestMayBeFrozen: define<{ reason: string }>(
    'GuestMayBeFrozen',
    'Error',
    'The guest agent does not confirm that the guest goes on; it is asked until it does',
    (vm, { reason }) => `The guest of VM '${vm}' may be frozen: ${reason}. Its agent is asked to thaw it until it confirms that.`,
  ),
  guestThawed: define<{ reason: string }>(
    'GuestThawed',
    'Information',
    'A guest that may have been frozen goes on',
    (vm, { reason }) => `The guest of VM '${vm}' is not frozen any more: ${reason}.`,
  ),
  guestStarted: define<{ guest: string; adapter: string }>(
    'GuestStarted',
    'Information',
    'The adapter has started a guest',
    (vm, { guest, adapter }) => `Guest '${guest}' of VM '${vm}' was started (adapter ${adapter}).`,
  ),
  guestStopped: define<{ guest: string; adapter: string }>(
    'GuestStopped',
    'Information',
    'The adapter has turned a guest off',
    (vm, { guest, adapter }) => `Guest '${guest}' of VM '${vm}' was turned off (adapter ${adapter}).`,
  ),
  guestAddressSet: define<{ guest: string }>(
    'GuestAddressSet',
    'Information',
    'A guest has got its addresses for this host',
    (vm, { guest }) => `Guest '${guest}' of VM '${vm}' has got its addresses for this host.`,
  ),
  guestAddressFailed: define<{ guest: string; reason: string }>(
    'GuestAddressFailed',
    'Warning',
    'A guest runs, and has not got its addresses for this host',
    (vm, { guest, reason }) => `Guest '${guest}' of VM '${vm}' runs and has not got its addresses for this host: ${reason}.`,
  ),
  adapterFailed: define<Failure & { guest: string; action: string }>(
    'AdapterFailed',
    'Warning',
    'The adapter could not start or stop a guest; what is served stays served',
    (vm, { guest, action, reason }) => `Action '${action}' for guest '${guest}' of VM '${vm}' failed: ${reason}.`,
  ),
} as const;
