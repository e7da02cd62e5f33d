/** Listening on a Unix socket that only its owner may use, with care for what is already at the path. */
import { once } from 'node:events';
import { lstat, unlink } from 'node:fs/promises';
import { connect, type Server } from 'node:net';
import { UnderstudyError, errnoOf, messageOf } from '../model/errors.ts';

/**
 * Listens at an absolute path of at most 107 bytes, mode 0600. A socket file that nobody answers is a leftover of a
 * crash and is replaced. Throws NBD_SOCKET_IN_USE, NBD_SOCKET_PATH_TAKEN or NBD_LISTEN_FAILED.
 */
export async function listenUnix(server: Server, path: string): Promise<void> {
  try {
    await listenPrivately(server, path);
  } catch (error) {
    if (errnoOf(error) !== 'EADDRINUSE') throw listenError(path, error);
    await removeLeftover(path);
    await listenPrivately(server, path).catch((again: unknown) => {
      throw listenError(path, again);
    });
  }
}

export function listenError(where: string, error: unknown): UnderstudyError {
  return new UnderstudyError('io', 'NBD_LISTEN_FAILED', `cannot listen at ${where}: ${messageOf(error)}`,
    'Check that the folder or address exists and is free, and that a socket path has at most 107 bytes.', { cause: error });
}

async function listenPrivately(server: Server, path: string): Promise<void> {
  const listening = once(server, 'listening');
  // `listen` binds before it returns, so the file never exists with wider permissions and the umask is changed for no
  // one else.
  const before = process.umask(0o177);
  try {
    server.listen(path);
  } finally {
    process.umask(before);
  }
  await listening;
}

async function removeLeftover(path: string): Promise<void> {
  const there = await lstat(path).catch(() => null);
  if (there !== null && !there.isSocket()) {
    throw new UnderstudyError('state', 'NBD_SOCKET_PATH_TAKEN', `${path} exists and is not a socket`,
      'Choose another path for the socket, or remove the file.');
  }
  if (await isAnswered(path)) {
    throw new UnderstudyError('state', 'NBD_SOCKET_IN_USE', `another program listens at ${path}`,
      'Stop the other program, or choose another path for the socket.');
  }
  await unlink(path).catch((error: unknown) => {
    if (errnoOf(error) !== 'ENOENT') throw listenError(path, error);
  });
}

/** Anything but a refusal counts as an answer: a socket that may be in use is not taken away. */
async function isAnswered(path: string): Promise<boolean> {
  const probe = connect(path);
  try {
    await once(probe, 'connect');
    return true;
  } catch (error) {
    return errnoOf(error) !== 'ECONNREFUSED' && errnoOf(error) !== 'ENOENT';
  } finally {
    probe.destroy();
  }
}
