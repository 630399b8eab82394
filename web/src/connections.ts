/**
 * Connections that the page allows itself. Its content security policy can only become stricter until the page is loaded again, so it
 * is limited before an image is opened: for a file no connection is left, for an address only those to its server.
 */

import { UserError } from "./tensor";

let limit: string | null | undefined;

/**
 * Forbid all connections of the page and of workers that it starts from now on, but those to one server.
 *
 * @param origin of the server (scheme, name and port); null for none.
 * @throws UserError if an earlier limit forbids that server.
 */
export function limitConnections(origin: string | null): void {
  if (limit === origin || limit === null) {
    if (origin !== null && limit === null) throw new UserError(RELOAD);
    return;
  }
  if (limit !== undefined && origin !== null) throw new UserError(RELOAD);
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = `connect-src ${origin ?? "'none'"}`;
  document.head.append(policy);
  limit = origin;
}

const RELOAD =
  "this page has closed its connections, since another image was opened: load the page again (F5), then open the address first";
