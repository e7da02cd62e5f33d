/** Who this host is, and which hosts it lets keep replicas here. */
import { UnderstudyError } from '../../model/errors.ts';
import type { AuthorizationRecord } from '../../model/records.ts';
import { parseFingerprint } from '../../peer/fingerprint.ts';
import { greet } from '../../peer/hello.ts';
import { TlsPeerLink } from '../../peer/tls-link.ts';
import type { AuthorizationEntry, HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';

type Operations = Pick<HostOperations, 'fingerprint' | 'authorize' | 'unauthorize' | 'authorizations' | 'test-connection'>;

const TRUST_GROUP_DEFAULT = 'DEFAULT';

export function pairingOperations(host: Host): Operations {
  const { catalog, parts } = host;
  return {
    'fingerprint': async () => {
      const { monitoringIntervalSec, monitoringStart } = host.settings();
      return { fingerprint: host.identity.fingerprint, name: host.name, peerPort: host.peer.address.port, monitoringIntervalSec, monitoringStart };
    },
    'authorize': async ({ fingerprint, name, storage, trustGroup }) => {
      const folder = storage ?? `${host.dataFolder}/replicas`;
      await checkStorage(host, folder);
      const entry: AuthorizationRecord = {
        fingerprint: fingerprint === 'any' ? 'any' : normaliseFingerprint(fingerprint), name: name ?? null, storageLocation: folder,
        trustGroup: trustGroup ?? TRUST_GROUP_DEFAULT, createdAt: parts.clock.now(),
      };
      catalog.transaction(() => catalog.authorizations.put(entry));
      return shape(entry);
    },
    'unauthorize': async ({ fingerprint }) => {
      const key = fingerprint === 'any' ? 'any' : normaliseFingerprint(fingerprint);
      const entry = catalog.authorizations.get(key);
      if (entry === undefined) {
        throw new UnderstudyError('usage', 'AUTHORIZATION_NOT_FOUND', `there is no authorisation of ${key}`, 'See: understudy authorizations');
      }
      catalog.transaction(() => catalog.authorizations.remove(key));
      host.peer.disconnect(key);
      return shape(entry);
    },
    'authorizations': async () => catalog.authorizations.list().map(shape),
    'test-connection': async ({ replica, fingerprint }, { signal }) => {
      const { clock } = parts;
      const [address, port] = splitHostPort(replica);
      const began = clock.monotonic();
      // A link of its own: one that is kept has been greeted before, and would say nothing of now.
      const link = new TlsPeerLink({ host: address, port, fingerprint: normaliseFingerprint(fingerprint), identity: host.identity, clock });
      try {
        const { hostName, skewMs } = await greet(link, { hostName: host.name, bootId: host.machine.bootId }, clock, { signal });
        return { hostName, clockSkewSeconds: skewMs / 1000, seconds: (clock.monotonic() - began) / 1000 };
      } finally {
        await link.close();
      }
    },
  };
}

/** The one written form: `AB:CD:…`. */
export function normaliseFingerprint(text: string): string {
  return parseFingerprint(text);
}

export function splitHostPort(text: string): [host: string, port: number] {
  const colon = text.lastIndexOf(':');
  const port = Number(text.slice(colon + 1));
  if (port < 1 || port > 65_535) throw new UnderstudyError('usage', 'BAD_ADDRESS', `${text} is not HOST:PORT`, 'Give for example 10.0.0.2:7743.');
  return [text.slice(0, colon).replace(/^\[|\]$/g, ''), port];
}

async function checkStorage(host: Host, folder: string): Promise<void> {
  try {
    await host.parts.files.makeFolder(folder);
  } catch (cause) {
    throw new UnderstudyError('io', 'REPLICA_STORAGE_UNUSABLE', `the storage location ${folder} cannot be made`,
      'Name another folder with --storage DIR.', { cause });
  }
}

const shape = ({ fingerprint, name, storageLocation, trustGroup }: AuthorizationRecord): AuthorizationEntry =>
  ({ fingerprint, name, storage: storageLocation, trustGroup });
