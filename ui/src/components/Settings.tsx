/** What may be set of one worker: what stands there now is filled in, and what makes no sense is said before it is sent. */

import { Button, HStack } from "@chakra-ui/react";
import { useState } from "react";
import { act, path, Problem } from "../api";
import { labelsIn, namesIn, pairs } from "../format";
import type { Worker } from "../types";
import { words } from "../words";
import { Ask } from "./Ask";

const SETTINGS = ["queues", "labels", "bundles", "slots"] as const;
export type Setting = (typeof SETTINGS)[number];

/** Return what stands there now, as people write it. */
export function written(setting: Setting, worker: Worker): string {
  switch (setting) {
    case "queues":
      return worker.queues.join(", ");
    case "labels":
      return pairs(worker.labels).join(", ");
    case "bundles":
      return (worker.bundles ?? []).join(", ");
    case "slots":
      return worker.slots_limit === null ? "" : String(worker.slots_limit);
  }
}

/** Return the wish that *text* is; throw a problem, in words, if it is none. */
export function wish(setting: Setting, text: string): object {
  const names = namesIn(text);
  switch (setting) {
    case "queues":
      if (!names.length) break;
      return { queues: names };
    case "labels": {
      const labels = labelsIn(text);
      if (!labels) break;
      return { labels };
    }
    case "bundles":
      return { bundles: names.length ? names : null };
    case "slots":
      if (!/^\s*\d*\s*$/.test(text)) break;
      return { slots: text.trim() ? Number(text) : null };
  }
  throw new Problem(words().wrong[setting], 0, "invalid");
}

export function Settings({ worker, onDone }: { worker: Worker; onDone: () => void }) {
  const [asked, setAsked] = useState<Setting>();
  const { actions, ask, explained } = words();
  return (
    <HStack gap="2" wrap="wrap">
      {SETTINGS.map((setting) => (
        <Button key={setting} onClick={() => setAsked(setting)} size="xs" variant="outline">
          {actions[setting]}
        </Button>
      ))}
      {asked ? (
        <Ask
          doIt={async ({ text }) => {
            await act("PUT", path("workers", worker.name, asked === "slots" ? "slots-limit" : asked), wish(asked, text));
            onDone();
          }}
          explained={explained[asked]}
          onClose={() => setAsked(undefined)}
          title={actions[asked]}
          wants={[{ name: "text", label: ask[asked], value: written(asked, worker) }]}
        />
      ) : null}
    </HStack>
  );
}
