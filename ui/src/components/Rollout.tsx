/** Actions on the rollout of a runtime, or of the worker's releases: widen it, roll back, halt, resume. A dialog asks for confirmation first. */

import { Button, HStack } from "@chakra-ui/react";
import { useState } from "react";
import { Problem } from "../api";
import { labelsIn, pairs, relative } from "../format";
import type { Runtime } from "../types";
import { useNow } from "../useNow";
import { words } from "../words";
import { Dialog, type DialogField } from "./Dialog";

const ACTIONS = ["roll", "rollBack", "halt", "resume"] as const;
export type RolloutAction = (typeof ACTIONS)[number];

type About = Pick<Runtime, "serial" | "previous" | "built" | "percent" | "labels" | "halted">;
interface Published {
  serial: number;
  published_at: string;
}

/** What is rolled out. */
export interface Rolled {
  about: About;
  /** The newest serial first. */
  editions: readonly Published[];
}

type Texts = Record<"percent" | "labels" | "serial" | "reason", string>;

/** Return the actions that the API would not refuse. *canGoBack*: there is something before the first serial. */
export function possible(details: Rolled, canGoBack = false): RolloutAction[] {
  const { about } = details;
  const isPossible: Record<RolloutAction, boolean> = {
    roll: about.built > 0 && !(about.halted && about.serial === about.built),
    rollBack: earlier(details).length > 0,
    halt: about.serial > 0 && (about.previous > 0 || canGoBack) && !about.halted,
    resume: about.halted !== "",
  };
  return ACTIONS.filter((action) => isPossible[action]);
}

/** Return what the API is to be asked for; throw a problem that says what to type if a text is not valid. */
export function requestOf(action: RolloutAction, texts: Texts): { verb: string; body?: object } {
  const { invalidInput } = words();
  switch (action) {
    case "roll": {
      const percent = Number(/^\s*(\d+)\s*%?\s*$/.exec(texts.percent)?.[1] ?? NaN);
      if (!(percent <= 100)) throw new Problem(invalidInput.percent, 0, "invalid");
      const labels = labelsIn(texts.labels);
      if (!labels) throw new Problem(invalidInput.labels, 0, "invalid");
      return { verb: "roll", body: { percent, labels } };
    }
    case "rollBack":
      return { verb: "roll", body: { percent: 100, labels: {}, to: Number(texts.serial) } };
    case "halt":
      return { verb: "halt", body: { reason: texts.reason } };
    case "resume":
      return { verb: "resume" };
  }
}

interface RolloutProps {
  details: Rolled;
  /** For the title of the dialog. */
  name: string;
  /** Ask the API to roll, halt or resume. */
  send: (verb: string, body?: object) => Promise<unknown>;
  /** There is something before the first serial, as with releases: workers keep what they run. */
  canGoBack?: boolean;
  onDone: () => void;
}

export function Rollout({ details, name, send, canGoBack = false, onDone }: RolloutProps) {
  const [pending, setPending] = useState<RolloutAction>();
  const now = useNow();
  const { actions, confirm } = words();
  const { about } = details;

  async function apply(action: RolloutAction, texts: Texts): Promise<void> {
    const { verb, body } = requestOf(action, texts);
    await send(verb, body);
    onDone();
  }

  return (
    <HStack gap="2" wrap="wrap">
      {possible(details, canGoBack).map((action) => (
        <Button key={action} onClick={() => setPending(action)} size="xs" variant="outline">
          {actions[action]}
        </Button>
      ))}
      {pending ? (
        <Dialog
          explanation={explain(pending, about, canGoBack)}
          fields={fieldsOf(pending, details, now)}
          onClose={() => setPending(undefined)}
          onConfirm={(texts) => apply(pending, texts)}
          title={confirm(actions[pending], [name])}
        />
      ) : null}
    </HStack>
  );
}

function explain(action: RolloutAction, { serial, built }: About, canGoBack: boolean): string {
  const { explanations } = words();
  switch (action) {
    case "roll":
      return canGoBack ? explanations.rollRelease(built) : explanations.roll(built);
    case "rollBack":
      return explanations.rollBack;
    case "halt":
      return canGoBack ? explanations.haltRelease(serial) : explanations.halt(serial);
    case "resume":
      return explanations.resume(serial);
  }
}

function fieldsOf(action: RolloutAction, details: Rolled, now: number): DialogField<keyof Texts>[] {
  const { prompts, publishedSerial } = words();
  const { about } = details;
  switch (action) {
    case "roll": {
      // The current share of a rollout that has begun; a new build has none.
      const isBegun = about.serial === about.built;
      return [
        { name: "percent", label: prompts.percent, value: String(isBegun ? about.percent : 100) },
        { name: "labels", label: prompts.rollLabels, value: isBegun ? pairs(about.labels).join(", ") : "" },
      ];
    }
    case "rollBack": {
      const editions = earlier(details);
      const choices = Object.fromEntries(editions.map((one) => [one.serial, publishedSerial(one.serial, relative(one.published_at, now))]));
      const first = editions.find((one) => one.serial === about.previous) ?? editions[0];
      return [{ name: "serial", label: prompts.serial, value: String(first?.serial ?? ""), choices }];
    }
    case "halt":
      return [{ name: "reason", label: prompts.haltReason }];
    case "resume":
      return [];
  }
}

/** Return one edition of each serial before the rolled one, the newest first. */
function earlier({ about, editions }: Rolled): Published[] {
  return editions.filter((one, at) => one.serial < about.serial && editions.findIndex(({ serial }) => serial === one.serial) === at);
}
