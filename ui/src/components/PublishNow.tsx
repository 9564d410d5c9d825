/** The request to publish a bundle now: its button for managers, and for everyone what has become of it. */

import { Button, HStack, Text } from "@chakra-ui/react";
import { useState } from "react";
import { act, asProblem, path, type Problem } from "../api";
import { relative, shortDigest } from "../format";
import type { Bundle } from "../types";
import { useNow } from "../useNow";
import { words } from "../words";
import { ErrorNotice } from "./Notices";

interface PublishNowProps {
  bundle: Bundle;
  mayManage: boolean;
  onDone: () => void;
}

export function PublishNow({ bundle, mayManage, onDone }: PublishNowProps) {
  /** The bundle as the API answered our request. */
  const [requested, setRequested] = useState<Bundle>();
  const [problem, setProblem] = useState<Problem>();
  const [isBusy, setBusy] = useState(false);
  const now = useNow();

  async function publish(): Promise<void> {
    setBusy(true);
    setProblem(undefined);
    try {
      setRequested(await act<Bundle>("POST", path("bundles", bundle.name, "publish")));
      onDone();
    } catch (error) {
      setProblem(asProblem(error));
    } finally {
      setBusy(false);
    }
  }

  return (
    <HStack gap="2" wrap="wrap">
      {mayManage ? (
        <Button loading={isBusy} onClick={() => void publish()} size="xs" variant="outline">
          {words().actions.publish}
        </Button>
      ) : null}
      <Text aria-live="polite" fontSize="xs">
        {outcome(bundle, requested, now)}
      </Text>
      <ErrorNotice problem={problem} />
    </HStack>
  );
}

/**
 * Return what has become of the newest request, in words; empty: there was no request. *requested* is the bundle when this user
 * asked. A scan that began later has done what they asked for.
 */
export function outcome(bundle: Bundle, requested: Bundle | undefined, now: number): string {
  const { publishing } = words();
  const since = requested?.wanted_at ?? null;
  const isDone = since !== null && bundle.scanned_at !== null && Date.parse(bundle.scanned_at) >= Date.parse(since);
  if (requested && isDone && bundle.wanted_at === null) {
    return bundle.tree === null || bundle.tree === requested.tree ? publishing.unchanged : publishing.published(shortDigest(bundle.tree));
  }
  const wantedAt = bundle.wanted_at ?? since;
  return wantedAt === null ? "" : publishing.requested(relative(wantedAt, Math.max(now, Date.parse(wantedAt))), bundle.is_publishing);
}
