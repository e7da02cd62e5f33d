/** Who this host is, and which hosts it lets keep replicas here. */
import { UnderstudyError } from '../../model/errors.ts';
import type { AuthorizationRecord } from '../../model/records.ts';
import { parseFingerprint } from '../../peer/fingerprint.ts';
import type { AuthorizationEntry, HostOperations } from '../api/contract.ts';
import type { Host } from '../host.ts';

type Operations = Pick<HostOperations, 'fingerprint' | 'authorize' | 'unauthorize' | 'authorizations'>;

const TRUST_GROUP_DEFAULT = 'DEFAULT';

export function pairingOperations(host: Host): Operations {
  const { catalog, parts } = host;
  return {
    'fingerprint': async () => ({ fingerprint: host.identity.fingerprint, name: host.name }),
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
  };
}

/** The one written form: `AB:CD:…`. */
export function normaliseFingerprint(text: string): string {
  return parseFingerprint(text);
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
